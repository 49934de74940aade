//! An HTTP server of the tests' own: it answers as it is told, whole or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// What is answered to a request.
pub(super) enum Reply {
    /// Status, headers, body.
    Whole(u16, Vec<(&'static str, String)>, String),
    /// The beginning of a body that was announced longer.
    CutOff(String),
    /// Nothing for so long.
    Silence(Duration),
}

/// A request.
pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Value,
    /// Its place among all requests, from 0.
    pub(super) number: usize,
}

pub(super) struct Service {
    pub(super) address: String,
    requests: Arc<AtomicUsize>,
    pub(super) seen: Arc<Mutex<Vec<Request>>>,
}

impl Service {
    pub(super) fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counter, log, reply) = (Arc::clone(&requests), Arc::clone(&seen), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counter, log, reply) =
                    (Arc::clone(&counter), Arc::clone(&log), Arc::clone(&reply));
                std::thread::spawn(move || {
                    let Some(mut request) = read(&stream) else { return };
                    request.number = counter.fetch_add(1, Ordering::SeqCst);
                    let answer = reply(&request);
                    log.lock().unwrap().push(request);
                    let _ = send(stream, answer); // who has gone away hears nothing
                });
            }
        });
        Self { address, requests, seen }
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length?.1.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: serde_json::from_slice(&body).ok()?, number: 0 })
}

fn send(mut stream: TcpStream, reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Whole(status, headers, body) => {
            let lines = headers.iter().map(|(name, value)| [*name, ": ", value, "\r\n"].concat());
            let headers: String = lines.collect();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
        }
        Reply::CutOff(body) => {
            let length = body.len() + 1000;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
        }
        Reply::Silence(time) => {
            std::thread::sleep(time);
            Ok(())
        }
    }
}
