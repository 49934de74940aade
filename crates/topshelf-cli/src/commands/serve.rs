//! `topshelf serve`: what the command line knows, over HTTP.

mod shelf;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use topshelf_server::{
    App, Limits, LogQueries, ServeError, ServeOptions, Shadow, Traces, serve, tls,
};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use self::shelf::Served;
use crate::args::{KeysCommand, LogForm, ServeArguments};
use crate::exit::usage;
use crate::say::say;

pub(super) fn run(arguments: &ServeArguments) -> Result<()> {
    let address = SocketAddr::new(arguments.host, arguments.port);
    refuse_public(arguments)?;
    let traces = match &arguments.traces {
        Some(address) => {
            let traces = Traces::start(address, arguments.traces_share);
            Some(traces.map_err(|error| told(&error))?)
        }
        None => None,
    };
    log(arguments.log, traces.as_ref());
    let acceptor = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(tls::acceptor(certificate, key).map_err(|error| told(&error))?)
        }
        _ => None,
    };
    let scheme = if acceptor.is_some() { "https" } else { "http" };
    let served = Served::open(arguments.clone())?;
    let options = options(arguments, &served)?;
    let served = Arc::new(served);
    served.warm();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the threads that serve")?;
    let ended = runtime.block_on(async move {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| usage(format!("cannot listen on {address}: {error}")))?;
        let bound = listener.local_addr()?;
        for line in served.describe() {
            say!("{line}");
        }
        let app = App::new(served, options).map_err(|error| told(&error))?;
        reload_on_signal(&app);
        // Standard output gets the address alone, so that a program that starts the server can read it.
        super::print(&format!("{scheme}://{bound}"))?;
        serve(app, listener, acceptor, stop_signal()).await.context("cannot serve any more")
    });
    // A change of an index that is still at work is left: the index then is as it was.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(traces); // the last ones are sent
    ended
}

fn options(arguments: &ServeArguments, served: &Served) -> Result<ServeOptions> {
    let limits = Limits {
        wait: arguments.max_wait,
        body: arguments.max_body.saturating_mul(1 << 20),
        documents: arguments.max_documents,
        ..Limits::default()
    };
    let shadow = match &arguments.shadow {
        Some(name) => {
            // On the same budget, and one model in memory if it is also served.
            let loaded = served.engine().reranker(name)?;
            Some(Arc::new(Shadow::new(loaded.model, arguments.shadow_share)))
        }
        None => None,
    };
    let log_queries = if arguments.log_queries { LogQueries::Always } else { LogQueries::Never };
    let (keys, origins) = (arguments.keys.clone(), arguments.cors.clone());
    Ok(ServeOptions { limits, keys, origins, shadow, log_queries })
}

/// What the server says before it serves is in what it was given.
fn told(error: &ServeError) -> anyhow::Error {
    usage(error.to_string())
}

/// Sends what is logged to standard error, and traces to their collector if there is one.
fn log(form: LogForm, traces: Option<&Traces>) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let (lines, level) = match form {
        LogForm::None => (lines.boxed(), LevelFilter::WARN),
        LogForm::Text => (lines.boxed(), LevelFilter::INFO),
        LogForm::Json => (lines.json().flatten_event(true).boxed(), LevelFilter::INFO),
    };
    let traces = traces.map(Traces::layer);
    tracing_subscriber::registry().with(lines.with_filter(level)).with(traces).init();
}

/// `topshelf keys`.
pub(super) fn keys(command: KeysCommand) -> Result<()> {
    let KeysCommand::New { name, file, per_minute, may_change } = command;
    let key = random_key()?;
    let mut entry = String::new();
    let quoted = toml::Value::String(name);
    let hash = topshelf_server::keys::hash(&key);
    let _ = write!(entry, "[[key]]\nname = {quoted}\nsha256 = \"{hash}\"\n"); // a string takes all
    if let Some(per_minute) = per_minute {
        let _ = writeln!(entry, "per_minute = {per_minute}");
    }
    if may_change {
        entry.push_str("may_change = true\n");
    }
    append(&file, &entry)?;
    say!("its hash is in {}; the key itself is shown this once:", file.display());
    super::print(&key)
}

/// 32 random bytes of the system's, as text.
fn random_key() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| usage(format!("no random numbers: {error}")))?;
    let hex = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a string takes all
        text
    });
    Ok(format!("ts-{hex}"))
}

fn append(file: &Path, entry: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || options.open(file)?.write_all(entry.as_bytes());
    write().map_err(|error| usage(format!("cannot write {}: {error}", file.display())))
}

/// Reads keys, models and indexes again on SIGHUP.
#[cfg(unix)]
fn reload_on_signal(app: &Arc<App>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let app = Arc::clone(app);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let app = Arc::clone(&app);
            match tokio::task::spawn_blocking(move || app.reload()).await {
                Ok(Ok(())) => say!("read keys, models and indexes again"),
                Ok(Err(error)) => say!("not reloaded, all is as it was: {error}"),
                Err(error) => say!("not reloaded: {error}"),
            }
        }
    });
}

#[cfg(not(unix))]
fn reload_on_signal(_app: &Arc<App>) {}

/// A server that everybody can reach and that asks nobody for a key is an accident.
fn refuse_public(arguments: &ServeArguments) -> Result<()> {
    let is_public = |host: IpAddr| !host.is_loopback();
    if is_public(arguments.host) && !arguments.insecure && arguments.keys.is_none() {
        return Err(usage(format!(
            "{} can be reached from other machines, and there are no keys: name a file of keys with \
             --keys, or say --insecure if something in front of the server asks for them",
            arguments.host
        )));
    }
    Ok(())
}

/// Becomes true with the first signal to stop; the second ends the program at once.
fn stop_signal() -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        signalled().await;
        say!("stopping: requests under way are brought to their end (again to stop at once)");
        let _ = stop.send(true); // nobody listens once the server has ended
        signalled().await;
        std::process::exit(130);
    });
    stopped
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signalled() {
    let _ = tokio::signal::ctrl_c().await; // without it, there is no signal to wait for
}
