//! An endpoint that answers as it is told, for what a real model does not do when it is wanted:
//! refuse, fail, be slow, talk nonsense. The shapes are those of llama.cpp's server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request's headers, in lower case, and its body.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) headers: String,
    pub(super) body: String,
}

/// A status with its further headers, and a body.
pub(super) struct Response(pub(super) &'static str, pub(super) String);

/// A server that goes on until the test ends.
pub(super) struct Endpoint {
    pub(super) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Endpoint {
    /// Answers the n-th request, from 0, as `answer` says.
    pub(super) fn start(
        answer: impl Fn(usize, &Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream, &seen, answer.as_ref()));
            }
        });
        Self { address, requests }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    stream: &TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(usize, &Request) -> Response + Send + Sync),
) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut headers = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return; // the client has what it wanted
            }
            if line == "\r\n" {
                break;
            }
            headers += &line.to_lowercase();
        }
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = Request { headers, body: String::from_utf8(body).unwrap() };
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let Response(status, body) = answer(number, &request);
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        if (&mut &*stream).write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// What a chat endpoint answers, 100 tokens read and 1 written.
pub(super) fn said(text: &str) -> Response {
    let body = serde_json::json!({
        "object": "chat.completion",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text } }],
        "usage": { "prompt_tokens": 100, "completion_tokens": 1 },
    });
    Response("200 OK", body.to_string())
}
