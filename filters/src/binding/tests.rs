//! Paths of each protocol, and those that two servers would read differently.

use super::*;

#[track_caller]
fn a2a(method: &str, path: &str, name: &str, binding: Binding) {
    let Path::Said(Said::A2a(own, by)) = read(method, path) else {
        panic!("{method} {path}: {:?}", read(method, path))
    };
    assert_eq!((&*own, by), (name, binding), "{method} {path}");
}

#[test]
fn every_method_of_a2a_is_known_in_both_bindings() {
    let (http, grpc) = (Binding::Http, Binding::Grpc);
    let usual = Binding::Perhaps { usual: true };
    for (method, path, name, binding) in [
        ("POST", "/message:send", "SendMessage", http),
        ("POST", "/v1/message:send", "SendMessage", http),
        ("POST", "/tenant/message:stream/", "SendStreamingMessage", http),
        ("POST", "/Message:Send", "SendMessage", http),
        ("POST", "/message%3Asend", "SendMessage", http),
        ("GET", "/tasks/7", "GetTask", usual),
        ("HEAD", "/v1/tasks/7", "GetTask", usual),
        ("GET", "/a/b/tasks/7", "GetTask", Binding::Perhaps { usual: false }),
        ("GET", "/tasks", "ListTasks", usual),
        ("POST", "/tasks/7:cancel", "CancelTask", http),
        ("GET", "/v1/tasks/7:subscribe", "SubscribeToTask", http),
        ("POST", "/tasks/7/pushNotificationConfigs", "CreateTaskPushNotificationConfig", http),
        ("GET", "/tasks/7/pushNotificationConfigs", "ListTaskPushNotificationConfigs", http),
        ("GET", "/t/tasks/7/pushNotificationConfigs/c", "GetTaskPushNotificationConfig", http),
        ("DELETE", "/tasks/7/pushNotificationConfigs/c", "DeleteTaskPushNotificationConfig", http),
        ("GET", "/extendedAgentCard", "GetExtendedAgentCard", http),
        ("GET", "/v1/card", "GetExtendedAgentCard", usual),
        ("POST", "/lf.a2a.v1.A2AService/SendMessage", "SendMessage", grpc),
        ("POST", "/a2a.v1.A2AService/TaskSubscription", "SubscribeToTask", grpc),
        ("POST", "/a2a.v1.A2AService/GetAgentCard", "GetExtendedAgentCard", grpc),
        ("POST", "/a2a.v1.A2AService/NewOne", "NewOne", grpc),
    ] {
        a2a(method, path, name, binding);
    }
    for (method, path) in
        [("POST", "/tasks"), ("POST", "/tasks/7"), ("GET", "/x/7:cancel"), ("POST", "/a.Service/SendMessage")]
    {
        assert_eq!(read(method, path), Path::Nothing, "{method} {path}");
    }
}

#[test]
fn models_are_found_in_paths() {
    let call = |name: &str| Path::Said(Said::Model(Some(name.into())));
    let body = || Path::Said(Said::Model(None));
    let one = |name: &str| Path::Said(Said::OneModel(name.into()));
    for (method, path, reading) in [
        ("POST", "/openai/deployments/big/chat/completions", call("big")),
        ("POST", "/v1/engines/big/completions", call("big")),
        ("POST", "/v1beta/models/gemini-2:generateContent", call("gemini-2")),
        ("POST", "/v1beta/tunedModels/t:streamGenerateContent", call("t")),
        ("POST", "/v1/projects/p/locations/l/publishers/google/models/g:predict", call("g")),
        ("POST", "/model/anthropic.claude-v1%3A0/converse", call("anthropic.claude-v1:0")),
        ("POST", "/model/m/invoke-with-response-stream", call("m")),
        ("POST", "/v2/models/m/versions/1/infer", call("m")),
        ("POST", "/v1/chat/completions", body()),
        ("POST", "/V1/Chat/Completions/", body()),
        ("POST", "/v1/messages", body()),
        ("POST", "/v1/messages/batches", Path::Said(Said::Batch)),
        ("POST", "/v1/batches", Path::Said(Said::Batch)),
        ("GET", "/v1/batches", Path::Nothing),
        ("POST", "/openai/responses", body()),
        ("POST", "/v1/embeddings", body()),
        ("POST", "/v1/audio/transcriptions", body()),
        ("GET", "/v1/models", Path::Said(Said::Models)),
        ("GET", "/v1//models/", Path::Said(Said::Models)),
        ("GET", "/openai/v1/models", Path::Said(Said::Models)),
        ("GET", "/api/tags", Path::Said(Said::Models)),
        ("GET", "/v1/models/big", one("big")),
        ("GET", "/v1/models/meta/big/permissions", one("meta/big")),
        ("DELETE", "/v1/models/meta/llama-3:8b", one("meta/llama-3:8b")),
        ("GET", "/v1/models/meta%2Fllama", one("meta/llama")),
        ("GET", "/models", Path::Nothing),
        ("GET", "/cars/models/t", Path::Nothing),
        ("POST", "/messages", Path::Nothing),
        ("POST", "/messages/?session_id=1", Path::Nothing),
        ("POST", "/embeddings", Path::Nothing),
    ] {
        assert_eq!(read(method, path.split('?').next().unwrap_or_default()), reading, "{method} {path}");
    }
}

#[test]
fn what_two_servers_read_differently_is_a_doubt() {
    for (method, path) in [
        ("POST", "/x%2Fmessage:send"),
        ("POST", "/tasks%2F7:cancel"),
        ("POST", "/v1;a=b/message:send;x"),
        ("POST", "/model/a%2Fb/converse"),
        ("POST", "/v1/models/small;x:generateContent"),
        ("POST", "/v1/models/big:generateContent;x"),
        ("POST", "/openai/deployments/small/../big/chat/completions"),
    ] {
        let doubtful = match read(method, path) {
            Path::Doubtful => true,
            // Both read the same after all.
            Path::Said(Said::A2a(name, _)) => name == "SendMessage" && path.contains("message"),
            _ => false,
        };
        assert!(doubtful, "{method} {path}: {:?}", read(method, path));
    }
}
