//! The text of the demo: documentation of the packages that this program was built from, where cargo
//! keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::args::DemoArguments;
use crate::exit::usage;

/// The packages whose documentation is indexed.
const LOCKFILE: &str = include_str!("../../../../../Cargo.lock");

/// How names of files of documentation at the root of a package begin, in lower case.
const README: &str = "readme";
const OTHERS: [&str; 3] = ["changelog", "changes", "releases"];

/// Which files are indexed. The rule looks at names only, so that the collection is the same on
/// every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Of each package that the questions are about the README, and whatever else answers one.
    Questions,
    /// READMEs, changelogs and the Markdown below `docs/` of all packages.
    All,
}

impl Extent {
    /// What is indexed of `packages` packages, in words.
    pub(super) fn describe(self, packages: usize) -> String {
        match self {
            Self::Questions => format!(
                "the READMEs of the {packages} packages that the questions are about, and every other \
                 file with an answer"
            ),
            Self::All => format!("READMEs, changelogs and docs of {packages} packages"),
        }
    }
}

/// `registry/src` of cargo's home, or how to go on without it.
pub(super) fn registry(arguments: &DemoArguments) -> Result<PathBuf> {
    let home = match &arguments.cargo_home {
        Some(home) => Some(home.clone()),
        None => std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))),
    };
    let registry = home.map(|home| home.join("registry").join("src"));
    // The index knows files by their canonical paths.
    let registry = registry.and_then(|dir| std::fs::canonicalize(dir).ok());
    registry.filter(|dir| dir.is_dir()).ok_or_else(|| {
        usage(
            "cargo's registry folder is not here, so there is no text for the demo; \
             name cargo's home with --cargo-home DIR, or take any folder of yours:\n  \
             topshelf demo --folder FOLDER --query 'your question'",
        )
    })
}

/// The files of each package that answer a question, by their paths in the package.
pub(super) type Answers<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// The files to index.
pub(super) struct Sources {
    /// In the order of their packages in Cargo.lock, which is that of their names.
    pub(super) files: Vec<PathBuf>,
    pub(super) packages: usize,
    pub(super) missing: usize,
    /// The folders `NAME-VERSION` under which each package lies.
    pub(super) folders: BTreeMap<String, Vec<String>>,
    /// The folder that ids are relative to.
    pub(super) base: PathBuf,
}

impl Sources {
    /// Looks for the packages of Cargo.lock in each registry of cargo's; a package is taken from
    /// the registry that holds most of them.
    pub(super) fn find(registry: &Path, extent: Extent, answers: &Answers<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Lockfile {
            package: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            name: String,
            version: String,
            source: Option<String>,
        }
        let lockfile: Lockfile = toml::from_str(LOCKFILE).context("Cargo.lock cannot be read")?;
        let is_wanted = |package: &Package| {
            let is_asked = extent == Extent::All || answers.contains_key(package.name.as_str());
            package.source.is_some() && is_asked
        };
        let packages: Vec<Package> = lockfile.package.into_iter().filter(is_wanted).collect();
        let folder = |package: &Package| format!("{}-{}", package.name, package.version);
        let entries = std::fs::read_dir(registry)
            .map_err(|error| usage(format!("cannot read {}: {error}", registry.display())))?;
        let base = entries
            .flatten()
            .map(|entry| entry.path())
            .max_by_key(|base| packages.iter().filter(|p| base.join(folder(p)).is_dir()).count());
        let base = base.unwrap_or_else(|| registry.to_owned());
        let mut sources =
            Self { files: Vec::new(), packages: 0, missing: 0, folders: BTreeMap::new(), base };
        for package in &packages {
            let dir = sources.base.join(folder(package));
            if !dir.is_dir() {
                sources.missing += 1;
                continue;
            }
            sources.packages += 1;
            sources.folders.entry(package.name.clone()).or_default().push(folder(package));
            let answers = answers.get(package.name.as_str());
            sources.files.extend(documentation(&dir, extent, answers));
        }
        if sources.files.is_empty() {
            return Err(usage(format!(
                "none of the packages this program was built from is in {}; \
                 `cargo fetch` in the project brings them, or take any folder of yours:\n  \
                 topshelf demo --folder FOLDER --query 'your question'",
                registry.display()
            )));
        }
        Ok(sources)
    }

    /// The first part: the files from `package` on, in the order of the packages' names and from the
    /// last to the first again, until they have `bytes` bytes. Answers all files in that order and
    /// how many belong to the first part.
    pub(super) fn starting_at(&self, package: &str, bytes: u64) -> (Vec<PathBuf>, usize) {
        let folders = self.folders.get(package).map(Vec::as_slice).unwrap_or_default();
        let of_package =
            |path: &PathBuf| folders.iter().any(|folder| path.starts_with(self.base.join(folder)));
        let start = self.files.iter().position(of_package).unwrap_or(0);
        let mut files = self.files.clone();
        files.rotate_left(start);
        let mut sum = 0;
        let first = files.iter().take_while(|path| {
            let begun = sum < bytes;
            sum += std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            begun
        });
        let first = first.count();
        (files, first)
    }
}

/// The files of a package that belong to the collection; `answers` are those with an answer.
fn documentation(
    dir: &Path,
    extent: Extent,
    answers: Option<&BTreeSet<&str>>,
) -> BTreeSet<PathBuf> {
    let is_documentation = |name: &str| {
        let other = || OTHERS.iter().any(|start| name.starts_with(start));
        name.starts_with(README) || (extent == Extent::All && other())
    };
    let answers = answers.into_iter().flatten().map(|file| dir.join(file));
    let mut found: BTreeSet<PathBuf> = answers.filter(|path| path.is_file()).collect();
    let list = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    for path in list(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_file() && is_documentation(&name) {
            found.insert(path);
        }
    }
    let mut folders = if extent == Extent::All { vec![dir.join("docs")] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        for path in list(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.insert(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(base: &Path, name: &str, bytes: usize) {
        let path = base.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x".repeat(bytes)).unwrap();
    }

    /// The names and versions of three packages of Cargo.lock, in its order.
    fn packages() -> Vec<(String, String)> {
        let value: toml::Value = toml::from_str(LOCKFILE).unwrap();
        let of_cargo = value["package"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|package| package.get("source").is_some());
        let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
        let mut packages: Vec<(String, String)> =
            of_cargo.map(|package| (text(package, "name"), text(package, "version"))).collect();
        packages.dedup_by(|a, b| a.0 == b.0);
        packages.truncate(3);
        packages
    }

    #[test]
    fn the_collection_is_chosen_by_names_and_the_first_part_by_order_and_size() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("index");
        let packages = packages();
        let folder = |n: usize| format!("{}-{}", packages[n].0, packages[n].1);
        for n in 0..3 {
            write(&base, &format!("{}/README.md", folder(n)), 100);
            write(&base, &format!("{}/CHANGELOG.md", folder(n)), 100);
            write(&base, &format!("{}/docs/deep/guide.md", folder(n)), 100);
            write(&base, &format!("{}/src/lib.rs", folder(n)), 100);
        }
        let answers = Answers::from([
            (packages[0].0.as_str(), BTreeSet::from(["README.md"])),
            (packages[2].0.as_str(), BTreeSet::from(["CHANGELOG.md", "docs/gone.md"])),
            ("no such package", BTreeSet::from(["README.md"])),
        ]);
        let asked = Sources::find(dir.path(), Extent::Questions, &answers).unwrap();
        let expected = [
            format!("{}/README.md", folder(0)),
            format!("{}/CHANGELOG.md", folder(2)),
            format!("{}/README.md", folder(2)),
        ];
        assert_eq!(asked.files, expected.map(|name| base.join(name)));
        assert_eq!(asked.packages, 2);
        assert_eq!(Sources::find(dir.path(), Extent::All, &answers).unwrap().files.len(), 9);

        let names = |sources: &Sources, package: &str, bytes| {
            let (files, first) = sources.starting_at(package, bytes);
            let names: Vec<String> = files
                .iter()
                .map(|path| path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned())
                .collect();
            (names, first)
        };
        let readme = |n: usize| format!("{}/README.md", folder(n));
        let changes = format!("{}/CHANGELOG.md", folder(2));
        let (order, first) = names(&asked, &packages[2].0, 101);
        assert_eq!((order, first), (vec![changes.clone(), readme(2), readme(0)], 2));
        let (order, first) = names(&asked, "no such package", 1);
        assert_eq!((order, first), (vec![readme(0), changes, readme(2)], 1));
        assert_eq!(names(&asked, &packages[0].0, 10_000).1, 3);
    }

    #[test]
    fn a_registry_without_any_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "index/unheard-of-1.0.0/README.md", 10);
        let found = Sources::find(dir.path(), Extent::All, &Answers::new());
        let error = found.err().unwrap().to_string();
        assert!(error.contains("none of the packages"), "{error}");
    }
}
