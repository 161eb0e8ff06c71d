//! Models: named in bodies, in forms, in paths; lists of them, and single ones.

use serde_json::{Value, json};

use super::{ALLOW, DENY, Guarded, answer, post_with};
use pilotfish_testkit::h1;

/// A POST of JSON to a path.
fn post_to(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    with(path, "Content-Type: application/json\r\n", body.as_bytes())
}

fn with(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let request =
        String::from_utf8_lossy(&post_with(lines, "")).replace("POST /mcp ", &format!("POST {path} "));
    let head = request.replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
    [head.as_bytes(), body].concat()
}

fn form(path: &str, model: &str, more: &str) -> Vec<u8> {
    let part =
        |what: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; {what}\r\n\r\n{value}\r\n");
    let file = part("name=\"file\"; filename=\"a.mp3\"", "\0\u{1}\r\n");
    let body = format!("{file}{}{more}--b--\r\n", part("name=\"model\"", model));
    with(path, "Content-Type: multipart/form-data; boundary=b\r\n", body.as_bytes())
}

#[tokio::test]
async fn a_model_is_found_wherever_its_api_has_it() {
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::plain(spec).await;
        let call = |model: &str| {
            let named = json!({"model": model, "messages": []});
            vec![
                post_to("/v1/chat/completions", &named),
                post_to("/v1/messages", &named),
                post_to("/api/chat", &named),
                post_to(&format!("/openai/deployments/{model}/chat/completions"), &json!({"messages": []})),
                post_to(&format!("/openai/deployments/{model}/chat/completions?api-version=1"), &named),
                post_to(&format!("/v1beta/models/{model}:generateContent"), &json!({"contents": []})),
                post_to(&format!("/v1/projects/p/publishers/google/models/{model}:predict"), &json!({})),
                post_to(&format!("/model/{model}/converse"), &json!({})),
                post_to(&format!("/V1/Models/{model}:generateContent/"), &json!({})),
                form("/v1/audio/transcriptions", model, ""),
                form("/v1/images/edits", model, ""),
            ]
        };
        for request in call("small") {
            guarded.passes(request).await;
        }
        for request in call("big") {
            guarded.refuses(request, "access-denied").await;
        }
    }
}

#[tokio::test]
async fn a_model_that_cannot_be_told_is_refused() {
    let twice = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nbig\r\n";
    let (small, none) = (json!({"model": "small"}), json!({"messages": []}));
    let kind = |kind: &str| format!("Content-Type: {kind}\r\n");
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::plain(spec).await;
        for request in [
            // The server's default.
            post_to("/v1/chat/completions", &none),
            post_to("/v1/responses", &json!({"prompt": {"id": "p"}})),
            with("/v1/completions", "", b""),
            // Two models.
            post_to("/openai/deployments/big/chat/completions", &small),
            post_to("/openai/deployments/small/chat/completions", &json!({"model": "big"})),
            post_to("/v1/chat/completions?model=big", &small),
            post_to("/v1/chat/completions?mod%65l=big", &small),
            form("/v1/audio/transcriptions", "small", twice),
            // What two servers read differently.
            post_to("/v1beta/models/big;x:generateContent", &none),
            // Other codings, other requests.
            with("/v1/chat/completions", &kind("application/x-protobuf"), b"\x0a\x03big"),
            with("/v1/chat/completions", &kind("application/x-www-form-urlencoded"), b"model=big"),
            with("/v1/audio/transcriptions", &kind("multipart/form-data"), b"--b\r\n"),
            with("/v1/images/generations", &kind("text/plain"), b"model: big"),
            post_to("/v1/batches", &json!({"input_file_id": "f", "model": "small"})),
            post_to("/v1/messages/batches", &json!({"requests": [{"params": {"model": "big"}}]})),
        ] {
            guarded.refuses(request, "not-decidable").await;
        }
    }
    // Where no rule asks for models nothing is lost by it.
    let guarded =
        Guarded::plain("{ action: DENY, rules: [{ when: [{ key: pilotfish.mcp.tool, values: [pay] }] }] }")
            .await;
    guarded.passes(post_to("/v1/chat/completions", &none)).await;
    guarded.passes(post_to("/v1/batches", &none)).await;
}

#[tokio::test]
async fn lists_of_models_are_narrowed_in_every_shape() {
    const MODELS: &str = r#"{"object":"list","data":[{"id":"big","created":1},{"id":"small","created":2}]}"#;
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::by(spec, |m, _| {
            let list = match &*m.header("x-shape").unwrap_or_default() {
                "anthropic" => {
                    r#"{"first_id":"big","data":[{"type":"model","id":"big"},{"id":"small"}],"has_more":false,"last_id":"small"}"#
                }
                "anthropic-none" => r#"{"data":[{"id":"big"}],"first_id":"big","last_id":"big"}"#,
                "gemini" => r#"{"models":[{"name":"models/big"},{"name":"models/small"}],"nextPageToken":"t"}"#,
                "ollama" => r#"{"models":[{"name":"small","model":"small"},{"name":"big","model":"big"}]}"#,
                _ => MODELS,
            };
            answer("application/json", list)
        })
        .await;
        let ask = async |path: &str, lines: &[&str]| {
            h1::get(guarded.sidecar.inbound, "x.test", path, lines).await.unwrap().text()
        };
        for path in
            ["/v1/models", "/v1/models/", "/v1//models", "/V1/models", "/v1/%6dodels;x=1", "/openai/models"]
        {
            let told = ask(path, &["Range: bytes=0-9"]).await;
            assert_eq!(told, r#"{"object":"list","data":[{"id":"small","created":2}]}"#, "{path}");
        }
        assert_eq!(ask("/v1/models", &["x-team: finance"]).await, MODELS);
        assert_eq!(
            ask("/v1/models", &["x-shape: anthropic"]).await,
            r#"{"first_id":"small","data":[{"id":"small"}],"has_more":false,"last_id":"small"}"#
        );
        assert_eq!(
            ask("/v1/models", &["x-shape: anthropic-none"]).await,
            r#"{"data":[],"first_id":null,"last_id":null}"#
        );
        assert_eq!(
            ask("/v1beta/models", &["x-shape: gemini"]).await,
            r#"{"models":[{"name":"models/small"}],"nextPageToken":"t"}"#
        );
        assert_eq!(
            ask("/api/tags", &["x-shape: ollama"]).await,
            r#"{"models":[{"name":"small","model":"small"}]}"#
        );
    }
}

#[tokio::test]
async fn a_model_that_one_may_not_use_is_as_unknown_as_one_that_there_is_not() {
    for spec in [DENY, ALLOW] {
        let guarded = Guarded::by(spec, |_, _| answer("application/json", r#"{"id":"m"}"#)).await;
        let get = |path: &str, lines: &str| format!("GET {path} HTTP/1.1\r\nHost: x.test\r\n{lines}\r\n");
        for path in ["/v1/models/big", "/v1/models/big/", "/V1/Models/b%69g", "/v1/models/big/permissions"] {
            let (told, got) = guarded.ask(get(path, "")).await;
            assert_eq!((told.status(), &*told.reason(), got), (404, "", None), "{path}");
            assert_eq!(told.json()["error"]["code"], "model_not_found", "{path}");
        }
        let (told, _) = guarded.ask(get("/v1/models/big", "anthropic-version: 2023-06-01\r\n")).await;
        assert_eq!((told.status(), &told.json()["error"]["type"]), (404, &json!("not_found_error")));
        let (told, _) = guarded.ask(get("/v1beta/models/big", "")).await;
        assert_eq!((told.status(), &told.json()["error"]["status"]), (404, &json!("NOT_FOUND")));
        for (path, lines) in [("/v1/models/small", ""), ("/v1/models/big", "x-team: finance\r\n")] {
            guarded.passes(get(path, lines)).await;
        }
        // Nor may it be deleted; where no rule lets anybody, that is told as ever.
        let delete = "DELETE /v1/models/big HTTP/1.1\r\nHost: x.test\r\n\r\n";
        let (told, got) = guarded.ask(delete).await;
        assert_eq!((told.status(), got), (if spec == ALLOW { 403 } else { 404 }, None));
    }
}
