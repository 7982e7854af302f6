//! The head of a connection: what a client's request wants to be upgraded to, and the answer. What does not live here: the
//! connection after it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::response::Builder;
use http::{HeaderMap, Method, Response, StatusCode};

use super::port_forward;
use super::spdy;
use super::websocket;

const SPDY: &str = "SPDY/3.1";
const VERSION: &str = "x-stream-protocol-version";
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";
/// What every server adds to the client's key (RFC 6455, section 1.3).
const WEBSOCKET: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the client will speak to an exec or attach session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commanding {
    /// SPDY streams.
    Spdy(spdy::Version),
    /// WebSocket channels.
    WebSocket(websocket::Protocol),
}

/// What the client will speak to forward ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// SPDY.
    Spdy,
    /// SPDY in WebSocket messages.
    Tunnel,
    /// WebSocket channels for the ports that were named beforehand.
    WebSocket(websocket::Protocol),
}

/// What is answered before the upgrade; a refusal says why.
pub type Answer = Response<String>;

/// A refusal; the client has nothing else to ask on this connection.
pub fn refuse(status: StatusCode, reason: impl Into<String>) -> Answer {
    let mut answer = Response::new(reason.into() + "\n");
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
    answer
}

/// For exec and attach.
pub fn commanding(method: &Method, headers: &HeaderMap) -> Result<(Commanding, Answer), Answer> {
    if is_websocket(headers) {
        let versions = websocket::VERSIONS.map(|version| version.name);
        let (name, answer) = accept_websocket(method, headers, &versions)?;
        let version = websocket::VERSIONS.iter().find(|version| version.name == name);
        return version.map(|version| (Commanding::WebSocket(*version), answer)).ok_or_else(unknown);
    }
    let (name, answer) = accept_spdy(headers, &spdy::VERSIONS.map(|version| version.name))?;
    let version = spdy::VERSIONS.iter().find(|version| version.name == name);
    version.map(|version| (Commanding::Spdy(*version), answer)).ok_or_else(unknown)
}

/// For port-forward.
pub fn forwarding(method: &Method, headers: &HeaderMap) -> Result<(Forwarding, Answer), Answer> {
    if is_websocket(headers) {
        let versions = websocket::VERSIONS.map(|version| version.name);
        let known = [&[websocket::TUNNEL], &versions[..]].concat();
        let (name, answer) = accept_websocket(method, headers, &known)?;
        let version = websocket::VERSIONS.iter().find(|version| version.name == name);
        return Ok((version.map_or(Forwarding::Tunnel, |version| Forwarding::WebSocket(*version)), answer));
    }
    let (_, answer) = accept_spdy(headers, &[port_forward::PROTOCOL])?;
    Ok((Forwarding::Spdy, answer))
}

fn unknown() -> Answer {
    refuse(StatusCode::FORBIDDEN, "no such protocol")
}

/// The words of a header that may come several times, with several words each.
fn words<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn upgrades_to(headers: &HeaderMap, protocol: &str) -> bool {
    words(headers, CONNECTION.as_str()).any(|word| word.eq_ignore_ascii_case("upgrade"))
        && words(headers, UPGRADE.as_str()).any(|word| word.eq_ignore_ascii_case(protocol))
}

fn is_websocket(headers: &HeaderMap) -> bool {
    upgrades_to(headers, "websocket")
}

fn switching() -> Builder {
    Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade")
}

fn answer(builder: Builder) -> Result<Answer, Answer> {
    builder.body(String::new()).map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// The client's first choice of those that are known.
fn choose<'a>(headers: &HeaderMap, header: &str, known: &[&'a str]) -> Option<&'a str> {
    words(headers, header).find_map(|word| known.iter().find(|known| **known == word)).copied()
}

fn accept_spdy<'a>(headers: &HeaderMap, known: &[&'a str]) -> Result<(&'a str, Answer), Answer> {
    if !upgrades_to(headers, SPDY) {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            format!("this needs an upgrade to {SPDY} or to websocket"),
        ));
    }
    if words(headers, VERSION).next().is_none() {
        return Err(refuse(StatusCode::BAD_REQUEST, format!("the header {VERSION} is missing")));
    }
    let Some(name) = choose(headers, VERSION, known) else {
        let reason = format!("none of the versions in {VERSION} is known, but {}", known.join(", "));
        let mut answer = refuse(StatusCode::FORBIDDEN, reason);
        for value in known.iter().filter_map(|known| known.parse().ok()) {
            answer.headers_mut().append(ACCEPTED, value);
        }
        return Err(answer);
    };
    Ok((name, answer(switching().header(UPGRADE, SPDY).header(VERSION, name))?))
}

fn accept_websocket<'a>(
    method: &Method,
    headers: &HeaderMap,
    known: &[&'a str],
) -> Result<(&'a str, Answer), Answer> {
    let key = headers.get(SEC_WEBSOCKET_KEY).map(http::HeaderValue::as_bytes);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let version = words(headers, SEC_WEBSOCKET_VERSION.as_str()).next();
    let (Some(key), &Method::GET, Some("13")) = (key, method, version) else {
        let mut answer = refuse(StatusCode::BAD_REQUEST, "this is no opening of a WebSocket of version 13");
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, http::HeaderValue::from_static("13"));
        return Err(answer);
    };
    let asked = words(headers, SEC_WEBSOCKET_PROTOCOL.as_str()).next().is_some();
    let name = if asked {
        choose(headers, SEC_WEBSOCKET_PROTOCOL.as_str(), known)
    } else {
        known.iter().find(|known| known.is_empty()).copied()
    };
    let Some(name) = name else {
        let reason =
            format!("none of the protocols in {SEC_WEBSOCKET_PROTOCOL} is known, but {}", known.join(", "));
        return Err(refuse(StatusCode::FORBIDDEN, reason));
    };
    let mut builder = switching().header(UPGRADE, "websocket").header(SEC_WEBSOCKET_ACCEPT, accept_key(key));
    if asked {
        builder = builder.header(SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((name, answer(builder)?))
}

fn accept_key(key: &[u8]) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(WEBSOCKET);
    STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const SPDY_HEAD: [(&str, &str); 2] = [("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")];
    const WEBSOCKET_HEAD: [(&str, &str); 4] = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn with(head: &[(&'static str, &'static str)], more: &[(&'static str, &'static str)]) -> HeaderMap {
        headers(&[head, more].concat())
    }

    #[test]
    fn the_clients_first_choice_that_is_known_is_taken() {
        let wishes = [(VERSION, "v9.channel.k8s.io, v3.channel.k8s.io"), (VERSION, "v4.channel.k8s.io")];
        let (chosen, answer) = commanding(&Method::POST, &with(&SPDY_HEAD, &wishes)).unwrap();
        assert!(matches!(chosen, Commanding::Spdy(version) if version.name == "v3.channel.k8s.io"));
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()[UPGRADE], "SPDY/3.1");
        assert_eq!(answer.headers()[VERSION], "v3.channel.k8s.io");
    }

    #[test]
    fn a_client_that_speaks_nothing_known_is_told_what_is() {
        let refused = commanding(&Method::POST, &with(&SPDY_HEAD, &[(VERSION, "v9")])).unwrap_err();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(refused.headers().get_all(ACCEPTED).iter().count(), 4);
        let refused = forwarding(&Method::POST, &with(&SPDY_HEAD, &[])).unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        let refused = forwarding(&Method::GET, &headers(&[])).unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_websocket_is_opened_as_the_rfc_says() {
        let wish = [("sec-websocket-protocol", "v5.channel.k8s.io")];
        let (chosen, answer) = commanding(&Method::GET, &with(&WEBSOCKET_HEAD, &wish)).unwrap();
        assert!(matches!(chosen, Commanding::WebSocket(version) if version.name == "v5.channel.k8s.io"));
        // RFC 6455, section 1.3, has this very key.
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");

        let (chosen, answer) = commanding(&Method::GET, &headers(&WEBSOCKET_HEAD)).unwrap();
        assert!(matches!(chosen, Commanding::WebSocket(version) if version.name.is_empty()));
        assert_eq!(answer.headers().get(SEC_WEBSOCKET_PROTOCOL), None);
    }

    #[test]
    fn a_websocket_that_is_none_is_refused() {
        assert!(commanding(&Method::POST, &headers(&WEBSOCKET_HEAD)).is_err());
        assert!(commanding(&Method::GET, &headers(&WEBSOCKET_HEAD[..3])).is_err());
        let wish = [("sec-websocket-protocol", "chat")];
        assert_eq!(
            commanding(&Method::GET, &with(&WEBSOCKET_HEAD, &wish)).unwrap_err().status(),
            StatusCode::FORBIDDEN
        );
        let (chosen, _) = forwarding(&Method::GET, &headers(&WEBSOCKET_HEAD)).unwrap();
        assert!(matches!(chosen, Forwarding::WebSocket(_)));
        let wish = [("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io")];
        let (chosen, _) = forwarding(&Method::GET, &with(&WEBSOCKET_HEAD, &wish)).unwrap();
        assert_eq!(chosen, Forwarding::Tunnel);
    }
}
