//! Tokens exchanged on behalf of whoever made the inbound call that the agent serves (RFC 8693).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pilotfish_testkit::origin::ok;
use pilotfish_testkit::relay::{Manners, Relay};
use pilotfish_testkit::tokens::{Signer, key_set, now};
use pilotfish_testkit::{Origin, Sidecar, h1};
use serde_json::json;

use super::{Safe, credential};
use crate::support::service;
use crate::tls::setup::{Mesh, ask};

/// An agent behind its sidecar, the API that it calls on behalf of its callers, and who exchanges their tokens.
struct Scene {
    mesh: Mesh,
    sidecar: Sidecar,
    relay: Relay,
    api: Origin,
    idp: Origin,
    signer: Signer,
    safe: Safe,
}

impl Scene {
    async fn start(manners: Manners) -> Scene {
        let (mesh, signer, mut safe) = (Mesh::new(), Signer::new("ES256", "one"), Safe::new());
        let secret = safe.put("secret", "cl1ent-s3cret");
        let relay = Relay::start("api.test", manners).await;
        let count = Arc::new(AtomicUsize::new(0));
        let idp = Origin::start(move |_, _| {
            let number = count.fetch_add(1, SeqCst) + 1;
            ok(format!(
                r#"{{"access_token":"exchang3d-{number}-x","token_type":"Bearer","expires_in":3600}}"#
            ))
        })
        .await;
        let api = Origin::plain().await;
        let authentication = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{ name: users }}\nspec:\n  jwtRules:\n  \
             - issuer: https://login.test\n    jwks: '{}'\n---\n",
            key_set([&signer])
        );
        let spec = format!(
            "exchange: {{ tokenUrl: \"http://{}/token\", audience: api, clientId: me, clientSecretFile: {secret} }}",
            idp.addr()
        );
        let yaml = service("api.test", api.port()) + &authentication + &credential("api", "api.test", &spec);
        let log = safe.path("access.log");
        let sidecar = mesh.sidecar("b").app(relay.addr()).yaml("a.yaml", yaml);
        let sidecar =
            sidecar.args(&["--access-log", "json", "--access-log-file", log.to_str().unwrap()]).start();
        relay.asks_through(sidecar.outbound);
        Scene { mesh, sidecar, relay, api, idp, signer, safe }
    }

    fn token(&mut self, user: &str) -> String {
        let claims = json!({ "iss": "https://login.test", "sub": user, "exp": now() + 600 });
        let token = self.signer.token(&claims);
        self.safe.secrets.push(token.clone());
        token
    }

    /// A call of agent `a`, with this token; the whole answer.
    async fn call(&self, path: &str, token: Option<&str>) -> String {
        let own = self.mesh.issue("a");
        let bearer = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
        let request = format!("GET {path} HTTP/1.1\r\nhost: b.test\r\n{bearer}connection: close\r\n\r\n");
        ask(self.sidecar.inbound, self.mesh.client(Some(&own)), &request).await.unwrap()
    }

    /// The token that arrived with this path.
    fn arrived(&self, path: &str) -> Option<String> {
        self.api.requests().iter().rfind(|seen| seen.target() == path)?.header("authorization")
    }

    /// How often a token of a user was exchanged.
    fn exchanged(&self, token: &str) -> usize {
        let body = |body: &[u8]| String::from_utf8_lossy(body).contains(&format!("subject_token={token}&"));
        self.idp.requests().iter().filter(|asked| body(&asked.body)).count()
    }
}

#[tokio::test]
async fn each_caller_has_a_token_of_its_own_and_the_agent_none() {
    let mut scene = Scene::start(Manners::Drops).await;
    let (ann, ben) = (scene.token("ann"), scene.token("ben"));
    for (n, (user, path, expected)) in [
        (&ann, "/1", "Bearer exchang3d-1-x"),
        (&ben, "/2", "Bearer exchang3d-2-x"),
        (&ann, "/3", "Bearer exchang3d-1-x"),
        (&ben, "/4", "Bearer exchang3d-2-x"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = scene.call(path, Some(user)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{n}: {answer}");
        assert_eq!(scene.arrived(path).as_deref(), Some(expected));
    }
    assert_eq!((scene.exchanged(&ann), scene.exchanged(&ben)), (1, 1));
    let body = String::from_utf8_lossy(&scene.idp.requests()[0].body).into_owned();
    assert!(
        body.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&"),
        "{body}"
    );
    assert!(body.contains(
        "&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&audience=api"
    ));
    // The agent got neither its callers' tokens nor the new ones.
    let heads = scene.relay.heads().join("\n");
    assert!(
        !heads.contains("eyJ") && !heads.contains("exchang3d") && !heads.contains("authorization"),
        "{heads}"
    );
    scene.safe.secrets.extend(["exchang3d-1-x".into(), "exchang3d-2-x".into()]);
    scene.safe.is_tight(&scene.sidecar).await;
}

#[tokio::test]
async fn a_call_on_nobodys_behalf_is_refused() {
    let mut scene = Scene::start(Manners::Drops).await;
    let answer = scene.call("/1", None).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("brought no valid token"), "{answer}");
    // One that is not valid never gets so far.
    let forged = scene.token("ann").replace('.', ".e");
    assert!(scene.call("/2", Some(&forged)).await.starts_with("HTTP/1.1 401"));
    // Nor may the agent bring one itself.
    let ann = scene.token("ann");
    let own = format!("authorization: Bearer {ann}");
    let answer = h1::get(scene.sidecar.outbound, "api.test", "/3", &[&own]).await.unwrap();
    assert_eq!((answer.status(), &*answer.reason()), (503, "credential-unavailable"));
    assert!(answer.text().contains("serves no call"), "{}", answer.text());
    assert_eq!((scene.api.requests().len(), scene.idp.requests().len()), (0, 0));
    scene.safe.is_tight(&scene.sidecar).await;
}

#[tokio::test]
async fn of_several_calls_the_agent_has_to_say_which() {
    for manners in [Manners::Drops, Manners::Tells] {
        let mut scene = Scene::start(manners).await;
        let (ann, ben) = (scene.token("ann"), scene.token("ben"));
        let (one, two, ()) =
            tokio::join!(scene.call("/held/ann", Some(&ann)), scene.call("/held/ben", Some(&ben)), async {
                while scene.relay.heads().len() < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                scene.relay.release(2);
            });
        let refused =
            |answer: &str| answer.starts_with("HTTP/1.1 503") && answer.contains("it is not certain");
        if manners == Manners::Drops {
            // The second is alone when the first has got its refusal.
            assert!(refused(&one) || refused(&two), "{one}\n{two}");
        } else {
            assert!(one.starts_with("HTTP/1.1 200") && two.starts_with("HTTP/1.1 200"), "{one}\n{two}");
        }
        // Nobody got the other's.
        let tokens: Vec<_> = scene.idp.requests();
        for (number, asked) in tokens.iter().enumerate() {
            let body = String::from_utf8_lossy(&asked.body).into_owned();
            let path = if body.contains(&ann) { "/ann" } else { "/ben" };
            assert_eq!(scene.arrived(path), Some(format!("Bearer exchang3d-{}-x", number + 1)), "{body}");
        }
        scene.safe.is_tight(&scene.sidecar).await;
    }
}

#[tokio::test]
async fn who_is_served_now_is_not_taken_for_a_caller_whose_call_has_ended() {
    let mut scene = Scene::start(Manners::Drops).await;
    let (ann, ben) = (scene.token("ann"), scene.token("ben"));
    assert!(scene.call("/ann", Some(&ann)).await.starts_with("HTTP/1.1 200"));
    let head = scene.relay.heads().pop().unwrap();
    let told = head.lines().find(|line| line.starts_with("x-pilotfish-call: ")).unwrap().to_owned();
    let late =
        async |headers: &[&str]| h1::get(scene.sidecar.outbound, "api.test", "/late", headers).await.unwrap();
    // The agent goes on after its answer. The call is over when the sidecar has seen the end of that.
    while !late(&[&told]).await.text().contains("serves no call") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (answer, ()) = tokio::join!(scene.call("/held/ben", Some(&ben)), async {
        while scene.relay.heads().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let answer = late(&[&told]).await;
        assert_eq!((answer.status(), &*answer.reason()), (503, "credential-unavailable"));
        assert!(answer.text().contains("it is not certain"), "{}", answer.text());
        assert_eq!(scene.exchanged(&ben), 0, "nothing was got with the token of somebody else");
        scene.relay.release(1);
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    scene.safe.is_tight(&scene.sidecar).await;
}

#[tokio::test]
async fn without_an_identity_a_valid_token_is_exchanged_too() {
    let (signer, mut safe) = (Signer::new("ES256", "one"), Safe::new());
    let idp = Origin::start(|_, _| ok(r#"{"access_token":"exchang3d-x","expires_in":3600}"#)).await;
    let (relay, api) = (Relay::start("api.test", Manners::Drops).await, Origin::plain().await);
    let yaml = service("api.test", api.port())
        + &format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{ name: users }}\nspec:\n  jwtRules:\n  \
             - issuer: https://login.test\n    jwks: '{}'\n---\n",
            key_set([&signer])
        )
        + &credential(
            "api",
            "api.test",
            &format!("exchange: {{ tokenUrl: \"http://{}/token\" }}", idp.addr()),
        );
    let sidecar = safe.builder(yaml).app(relay.addr()).start();
    relay.asks_through(sidecar.outbound);
    let token = signer.token(&json!({ "iss": "https://login.test", "sub": "ann", "exp": now() + 600 }));
    safe.secrets.extend([token.clone(), "exchang3d-x".into()]);
    let bearer = format!("authorization: Bearer {token}");
    let answer = h1::get(sidecar.inbound, "b.test", "/1", &[&bearer]).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(api.requests()[0].header("authorization").as_deref(), Some("Bearer exchang3d-x"));
    assert!(String::from_utf8_lossy(&idp.requests()[0].body).contains(&format!("subject_token={token}&")));
    // Nobody's is not exchanged, and what a caller says of itself is not believed.
    let forged = ["x-pilotfish-call: 0000000000000001", "x-pilotfish-path: 1;default/a"];
    let answer = h1::get(sidecar.inbound, "b.test", "/2", &forged).await.unwrap();
    assert!(answer.text().contains("brought no valid token"), "{}", answer.text());
    assert_eq!((api.requests().len(), idp.requests().len()), (1, 1));
    safe.is_tight(&sidecar).await;
}
