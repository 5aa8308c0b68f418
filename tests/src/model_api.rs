//! A stand-in for the Messages API, with a script instead of a model: each turn is a Bash command, then a last word.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

/// A server on 127.0.0.1 that answers as the script says. Its threads end with the process.
#[derive(Debug)]
pub struct ModelApi {
    port: u16,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl ModelApi {
    /// Answers the n-th turn with a Bash tool call of the n-th command, and then with `done`.
    pub fn start(commands: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (log, commands) = (Arc::clone(&heard), commands.to_vec());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, commands) = (Arc::clone(&log), commands.clone());
                std::thread::spawn(move || serve(stream, &commands, &log));
            }
        });
        Self { port, heard }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The bodies that were posted.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().expect("no thread panics with it").clone()
    }

    /// Every tool result that the agent sent back, as text, in order and without repetition.
    pub fn results(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for body in self.heard() {
            for block in results_in(&body) {
                let text = block.get("content").map(ToString::to_string).unwrap_or_default();
                if !found.contains(&text) {
                    found.push(text);
                }
            }
        }
        found
    }
}

fn results_in(body: &Value) -> Vec<Value> {
    let messages = body.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
    messages
        .iter()
        .filter_map(|message| message.get("content")?.as_array())
        .flatten()
        .filter(|block| block.get("type").and_then(Value::as_str) == Some("tool_result"))
        .cloned()
        .collect()
}

fn serve(stream: TcpStream, commands: &[String], log: &Mutex<Vec<Value>>) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = request(&mut reader) {
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let answer = if head.starts_with("POST /v1/messages") && !head.contains("count_tokens") {
            if let Ok(mut log) = log.lock() {
                log.push(body.clone());
            }
            answer(&body, commands)
        } else if head.contains("count_tokens") {
            http("application/json", r#"{"input_tokens":1}"#)
        } else {
            http("application/json", "{}")
        };
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, body))
}

fn http(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The next step of the script: as many turns as tool results are over.
fn answer(body: &Value, commands: &[String]) -> String {
    let has_bash = body.get("tools").and_then(Value::as_array).is_some_and(|tools| {
        tools.iter().any(|tool| tool.get("name").and_then(Value::as_str) == Some("Bash"))
    });
    let turn = results_in(body).len();
    let block = match commands.get(turn).filter(|_| has_bash) {
        Some(command) => json!({
            "type": "tool_use", "id": format!("toolu_{turn:04}"), "name": "Bash",
            "input": { "command": command, "description": "Ask the database" }
        }),
        None => json!({ "type": "text", "text": "done" }),
    };
    let reason = if block["type"] == "text" { "end_turn" } else { "tool_use" };
    let model = body.get("model").cloned().unwrap_or_else(|| json!("scripted"));
    let mut message = json!({
        "id": format!("msg_{turn:04}"), "type": "message", "role": "assistant", "model": model,
        "content": [block], "stop_reason": reason, "stop_sequence": null,
        "usage": { "input_tokens": 1, "output_tokens": 1 }
    });
    if body.get("stream").and_then(Value::as_bool) != Some(true) {
        return http("application/json", &message.to_string());
    }
    let block = message["content"][0].take();
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    http("text/event-stream", &events(&message, &block, reason))
}

fn events(message: &Value, block: &Value, reason: &str) -> String {
    let mut empty = block.clone();
    let delta = if block["type"] == "text" {
        empty["text"] = json!("");
        json!({ "type": "text_delta", "text": block["text"] })
    } else {
        empty["input"] = json!({});
        json!({ "type": "input_json_delta", "partial_json": block["input"].to_string() })
    };
    [
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": empty }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": null },
                "usage": { "output_tokens": 1 } }),
        json!({ "type": "message_stop" }),
    ]
    .iter()
    .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
    .collect()
}
