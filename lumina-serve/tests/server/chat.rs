//! Chats.

use lumina_mgpt::{Conversation, InputImage, Modality};
use serde_json::{Value, json};

use crate::support::{Server, data_url, model, scene};

const PATH: &str = "/v1/chat/completions";

fn image_part(url: &str) -> Value {
    json!({ "type": "image_url", "image_url": { "url": url } })
}

fn caption(more: Value) -> Value {
    let mut body = json!({
        "model": "lumina-mgpt", "task": "captioning", "seed": 4,
        "messages": [{ "role": "user", "content": [image_part(&data_url(scene()))] }],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A request whose answer is an image, after which a chat goes on.
fn drawing() -> Value {
    let text =
        "Generate an image of 96x96 according to the following prompt:\na small red circle on a white background";
    json!({ "seed": 9, "messages": [{ "role": "user", "content": text }] })
}

#[test]
fn a_caption_is_the_librarys() {
    let server = Server::new();
    let answer = server.post(PATH, &caption(json!({}))).ok();
    let expected = model().caption(InputImage::from_bytes(scene()).unwrap()).seed(4).run().unwrap();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], json!(expected));
    assert!(!expected.is_empty() && choice["message"].get("images").is_none());
    assert_eq!((&choice["finish_reason"], &choice["message"]["role"]), (&json!("stop"), &json!("assistant")));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("lumina-mgpt")));
    let usage = &answer["usage"];
    let tokens = |name: &str| usage[name].as_u64().unwrap();
    assert!(tokens("prompt_tokens") > 28 && tokens("completion_tokens") > 1);
    assert_eq!(tokens("total_tokens"), tokens("prompt_tokens") + tokens("completion_tokens"));
}

#[test]
fn streamed_is_what_it_is_in_one_piece() {
    let server = Server::new();
    let body = caption(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let events = server.post(PATH, &body).events();
    let whole = server.post(PATH, &caption(json!({}))).ok();
    assert_eq!(events.last().unwrap().1, json!("[DONE]"));
    let chunks: Vec<&Value> = events[..events.len() - 1].iter().map(|(_, data)| data).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], json!("assistant"));
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(json!(text), whole["choices"][0]["message"]["content"]);
    let (usage, last) = (chunks[chunks.len() - 1], chunks[chunks.len() - 2]);
    assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]));
    assert_eq!(last["choices"][0]["finish_reason"], json!("stop"));
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk"));
    // Without being asked, no numbers.
    let events = server.post(PATH, &caption(json!({ "stream": true }))).events();
    assert!(events.iter().all(|(_, data)| data.get("usage").is_none()));
}

#[test]
fn a_chat_of_several_turns_takes_its_images_back() {
    let server = Server::new();
    let first = server.post(PATH, &drawing()).ok();
    let message = first["choices"][0]["message"].clone();
    let image = &message["images"][0];
    assert_eq!((&image["type"], &image["index"], &image["position"]), (&json!("image_url"), &json!(0), &json!(0)));
    let url = image["image_url"]["url"].as_str().unwrap();
    assert!(url.starts_with("data:image/png;base64,"));
    // The same, streamed.
    let mut streamed = drawing();
    streamed["stream"] = json!(true);
    let events = server.post(PATH, &streamed).events();
    let delta = events.iter().find_map(|(_, data)| data["choices"][0]["delta"]["images"].as_array());
    assert_eq!(delta, message["images"].as_array());

    // The answer is sent back as it came, and the chat goes on as the library's would.
    let question = "Describe the image in detail.";
    let body = json!({ "seed": 5, "max_tokens": 30, "modalities": ["text"], "messages": [
        drawing()["messages"][0], message, { "role": "user", "content": question },
    ] });
    let second = server.post(PATH, &body).ok();
    let file = crate::support::file_of(&json!(url.split_once(',').unwrap().1));
    let codes = model().encode_image(&InputImage::from_bytes(&file).unwrap()).unwrap();
    let conversation = Conversation::new()
        .human(drawing()["messages"][0]["content"].as_str().unwrap())
        .assistant(codes)
        .human(question);
    let expected = model().chat(conversation).modality(Modality::Text).seed(5).max_new_tokens(30).run().unwrap();
    assert_eq!(second["choices"][0]["message"]["content"], json!(expected.text));
    assert_eq!(second["usage"]["prompt_tokens"], json!(expected.stats.prompt_tokens));
}

#[test]
fn answers_are_cut_off_and_forbidden_images() {
    let server = Server::new();
    let answer = server.post(PATH, &caption(json!({ "max_completion_tokens": 2 }))).ok();
    assert_eq!(answer["choices"][0]["finish_reason"], json!("length"));
    assert_eq!(answer["usage"]["completion_tokens"], json!(2));
    let mut text_alone = drawing();
    text_alone["modalities"] = json!(["text"]);
    text_alone["max_tokens"] = json!(20);
    assert!(server.post(PATH, &text_alone).ok()["choices"][0]["message"].get("images").is_none());
    // An image that is cut off is the rows that are there.
    let mut cut_off = drawing();
    cut_off["max_tokens"] = json!(3 + 3 * 7);
    let answer = server.post(PATH, &cut_off).ok();
    let image = &answer["choices"][0]["message"]["images"][0];
    assert_eq!((&image["incomplete"], &answer["choices"][0]["finish_reason"]), (&json!(true), &json!("length")));
}

#[test]
fn a_system_message_comes_before_the_first_text() {
    let server = Server::new();
    let ask = |messages: Value| {
        let body = json!({ "seed": 1, "max_tokens": 8, "modalities": ["text"], "messages": messages });
        server.post(PATH, &body).ok()
    };
    let with_system =
        ask(json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hello" }]));
    let in_front = ask(json!([{ "role": "user", "content": "Be brief.\nHello" }]));
    assert_eq!(with_system["usage"], in_front["usage"]);
    assert_eq!(with_system["choices"][0]["message"], in_front["choices"][0]["message"]);
    // Of several system messages each is on a line of its own.
    let twice = ask(json!([
        { "role": "system", "content": "Be" }, { "role": "developer", "content": "brief." },
        { "role": "user", "content": [{ "type": "text", "text": "Hello" }, { "type": "text", "text": "you" }] },
    ]));
    let lines = ask(json!([{ "role": "user", "content": "Be\nbrief.\nHello\nyou" }]));
    assert_eq!(twice["usage"], lines["usage"]);
}

#[test]
fn what_cannot_be_done_is_refused_by_its_name() {
    let server = Server::new();
    let hello = json!([{ "role": "user", "content": "Hello" }]);
    for (more, param) in [
        (json!({ "foo": 1 }), "foo"),
        (json!({ "n": 2 }), "n"),
        (json!({ "stop": ["x"] }), "stop"),
        (json!({ "tools": [{ "type": "function" }] }), "tools"),
        (json!({ "response_format": { "type": "json_object" } }), "response_format"),
        (json!({ "logprobs": true }), "logprobs"),
        (json!({ "modalities": ["audio"] }), "modalities[0]"),
        (json!({ "modalities": [] }), "modalities"),
        (json!({ "max_tokens": 0 }), "max_completion_tokens"),
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "stream_options": { "include_usage": true } }), "stream_options"),
        (json!({ "task": "painting" }), "task"),
        (json!({ "task": "surface_normal_estimation" }), "task"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0]"),
        (json!({ "messages": [{ "role": "tool", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user", "content": 3 }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "text" }] }] }), "messages[0].content[0]"),
        (
            json!({ "messages": [{ "role": "user", "content": [image_part("http://x/y")] }] }),
            "messages[0].content[0].image_url.url",
        ),
        (json!({ "messages": [{ "role": "user", "content": "x", "images": [] }] }), "messages[0].images"),
        (
            json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": "y" }] }),
            "messages",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "system", "content": "y" }] }),
            "messages[1]",
        ),
    ] {
        let mut body = json!({ "messages": hello });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (message, found) = server.post(PATH, &body).refused(400);
        assert_eq!(found.as_deref(), Some(param), "{more}: {message}");
    }
    // Turns that do not alternate, by the tokenizer.
    let body = json!({ "messages": [hello[0], hello[0], hello[0]] });
    let (message, _) = server.post(PATH, &body).refused(400);
    assert!(message.contains("human") && message.contains("assistant"), "{message}");
    for body in
        [json!({ "content": "" }), json!({ "content": " " }), json!({ "content": [{ "type": "text", "text": "" }] })]
    {
        let mut message = json!({ "role": "user" });
        message.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let (message, param) = server.post(PATH, &json!({ "messages": [message] })).refused(400);
        assert!(message.contains("needs a text or an image") && param.as_deref() == Some("messages"), "{message}");
    }
    // What is empty asks for nothing.
    let body = json!({ "messages": hello, "stop": [], "tools": [], "n": 1, "logprobs": false, "max_tokens": 2,
        "presence_penalty": 0, "response_format": { "type": "text" }, "user": "me", "metadata": { "a": "b" } });
    server.post(PATH, &body).ok();
}
