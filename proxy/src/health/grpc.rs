//! A gRPC probe: `grpc.health.v1.Health/Check` over HTTP/2, good when it says SERVING.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    /// Which service; empty: the server as a whole.
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    /// 0 unknown, 1 serving, 2 not serving, 3 unknown service.
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
/// The longest answer; a good one has two bytes.
const LONGEST: usize = 4096;

/// One gRPC message as it travels: not compressed, with its length.
pub fn frame(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    // A buffer that grows is never too small.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// Asks once.
///
/// # Errors
/// What is wrong with the answer, or with the way to it.
pub async fn ask<S>(stream: S, service: &str, headers: &[(String, String)]) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: h2::Error| format!("no gRPC over HTTP/2: {error}");
    let (requests, connection) = h2::client::handshake(stream).await.map_err(broken)?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let result = check(requests, service, headers).await;
    driver.abort();
    result
}

async fn check(
    requests: h2::client::SendRequest<Bytes>,
    service: &str,
    headers: &[(String, String)],
) -> Result<(), String> {
    let broken = |error: h2::Error| format!("no gRPC over HTTP/2: {error}");
    let request = http::Request::post("http://agent/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "pilotfish-probe");
    let request = headers
        .iter()
        .fold(request, |request, (name, value)| request.header(name, value))
        .body(())
        .map_err(|error| error.to_string())?;
    let mut requests = requests.ready().await.map_err(broken)?;
    let (answer, mut send) = requests.send_request(request, false).map_err(broken)?;
    let message = HealthCheckRequest { service: service.to_owned() };
    send.send_data(frame(&message), true).map_err(broken)?;
    let answer = answer.await.map_err(broken)?;
    let grpc_status = |headers: &http::HeaderMap| {
        headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    // An answer without a message has its status in its head.
    let mut status = grpc_status(answer.headers());
    if answer.status() != http::StatusCode::OK {
        return Err(format!("it answers {}", answer.status().as_u16()));
    }
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(broken)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST {
            return Err("its answer is too long".into());
        }
    }
    if status.is_none() {
        status = body.trailers().await.map_err(broken)?.as_ref().and_then(grpc_status);
    }
    match status.as_deref() {
        Some("0") => judge(&bytes),
        Some(status) => Err(format!("grpc-status {status}")),
        None => Err("its answer has no grpc-status".into()),
    }
}

fn judge(bytes: &[u8]) -> Result<(), String> {
    let message = bytes.get(5..).filter(|_| bytes[0] == 0).ok_or("its answer has no message")?;
    let answer = HealthCheckResponse::decode(message).map_err(|error| error.to_string())?;
    match answer.status {
        SERVING => Ok(()),
        2 => Err("it says NOT_SERVING".into()),
        status => Err(format!("it says {status}, not SERVING")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_standard() {
        let message = HealthCheckRequest { service: "a".into() };
        assert_eq!(&frame(&message)[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(judge(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for bad in
            [&[][..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 8, 2], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8]]
        {
            assert!(judge(bad).is_err(), "{bad:?}");
        }
    }
}
