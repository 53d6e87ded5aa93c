//! Requests that were damaged on their way: each is answered or refused, and none is the server's fault.

use serde_json::json;

use crate::support::{PROMPT, Server, data_url, scene};

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn damage(body: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(body.len());
        match numbers.below(5) {
            0 => body.truncate(at.max(1)),
            1 => body[at] ^= 1 << numbers.below(8),
            2 => body[at] = b"\"{}[]:,0-9e.\\ntu"[numbers.below(16)],
            3 => drop(body.remove(at)),
            _ => {
                let piece: Vec<u8> = body[at..(at + 9).min(body.len())].to_vec();
                let to = numbers.below(body.len());
                body.splice(to..to, piece);
            }
        }
        if body.is_empty() {
            body.push(b' ');
        }
    }
    body
}

#[test]
fn nothing_that_is_sent_is_the_servers_fault() {
    let server = Server::new();
    let image = data_url(scene());
    let generation =
        json!({ "prompt": PROMPT, "n": 1, "size": "32x128", "seed": 7, "temperature": 0.5, "stream": false });
    let edit =
        json!({ "prompt": "make it blue", "image": image, "task": "editing", "top_k": 3, "deadline_ms": 60_000 });
    let part = json!({ "type": "image_url", "image_url": { "url": image } });
    let chat = json!({ "max_tokens": 5, "modalities": ["text"], "messages": [
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "text", "text": "What is it?" }, part] },
        { "role": "assistant", "content": "Two", "images": [{ "image_url": { "url": image }, "position": 1 }] },
        { "role": "user", "content": "Which?" },
    ] });
    let mut form = Vec::new();
    for (name, text) in [("prompt", "make it blue"), ("n", "1"), ("stream", "false")] {
        form.extend(format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n").bytes());
    }
    form.extend(b"--limit\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n");
    form.extend(scene());
    form.extend(b"\r\n--limit--\r\n");

    let mut numbers = Numbers(1);
    let json = "application/json";
    let mut answers = [0; 2];
    for (path, kind, body) in [
        ("/v1/images/generations", json, generation.to_string().into_bytes()),
        ("/v1/images/edits", json, edit.to_string().into_bytes()),
        ("/v1/images/edits", "multipart/form-data; boundary=limit", form),
        ("/v1/chat/completions", json, chat.to_string().into_bytes()),
    ] {
        let send = |body: &[u8]| server.send("POST", path, &[("Content-Type", kind)], body);
        assert_eq!(send(&body).status, 200, "{path}: {}", send(&body).text());
        for _ in 0..400 {
            let damaged = damage(&body, &mut numbers);
            let answer = send(&damaged);
            match answer.status {
                200 => answers[0] += 1,
                400 | 404 | 413 | 504 => answers[1] += 1,
                status => panic!("{path}: {status} for {}", String::from_utf8_lossy(&damaged)),
            }
        }
    }
    assert!(answers.iter().all(|&count| count > 10), "answered and refused: {answers:?}");
    assert_eq!(server.handle.metrics().failed, 0);
}
