//! `envoy/envoy.jwt.yaml`: users are who a token says, and nobody else.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{env, fs};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorbuster_e2e::http::{self, Reply};
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Stack, envoy_config, token};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};

use crate::support::eventually;

/// What the key set of `envoy.jwt.yaml` calls its key; ours goes by the same name.
const KID: &str = "nobody";

/// An identity provider.
struct Login {
    key: SigningKey,
}

impl Login {
    /// Of the tests alone: no configuration holds its public half.
    fn ours() -> Self {
        Self { key: SigningKey::from_slice(&[7; 32]).unwrap() }
    }

    fn somebody_else_s() -> Self {
        Self { key: SigningKey::from_slice(&[8; 32]).unwrap() }
    }

    fn key_set(&self) -> Value {
        let point = self.key.verifying_key().to_sec1_point(false);
        let [x, y] = [point.x(), point.y()].map(|half| URL_SAFE_NO_PAD.encode(half.unwrap()));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KID, "x": x, "y": y}]})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature: Signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }

    /// A token in which `changes` replace claims of a good one; null removes.
    fn token(&self, changes: Value) -> String {
        self.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": KID}), &claims(changes))
    }

    fn user(&self, sub: &str) -> String {
        self.token(json!({ "sub": sub }))
    }
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn claims(changes: Value) -> Value {
    let mut claims =
        json!({"iss": "https://login.example", "aud": "doorbuster", "sub": "alice", "exp": in_seconds(600)});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

#[expect(clippy::disallowed_methods, reason = "Envoy compares a token's life with this machine's clock")]
fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_secs().cast_signed() + seconds
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy").join(name)
}

fn provider(config: &mut Value) -> &mut Value {
    let filters = http_connection_manager(config)["http_filters"].as_array_mut().unwrap();
    let jwt = filters.iter_mut().find(|filter| filter["name"] == "envoy.filters.http.jwt_authn").unwrap();
    &mut jwt["typed_config"]["providers"]["login"]
}

fn http_connection_manager(config: &mut Value) -> &mut Value {
    config.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config").unwrap()
}

/// `envoy.jwt.yaml` as shipped, but for what `change` does to its provider of tokens.
fn stack(backends: usize, change: impl FnOnce(&mut Value)) -> Stack {
    let mut config = envoy_config::load(&shipped("envoy.jwt.yaml")).unwrap();
    change(provider(&mut config));
    let template = env::temp_dir().join(format!("identity-{}.json", token::random_token().unwrap()));
    fs::write(&template, config.to_string()).unwrap();
    let started = Stack::builder().backends(backends).template(&template).start();
    fs::remove_file(template).unwrap();
    started.unwrap()
}

fn stack_that_believes(login: &Login) -> Stack {
    let stack = stack(1, |provider| provider["local_jwks"]["inline_string"] = login.key_set().to_string().into());
    stack.announce("spring", &open_all_day(10)).unwrap();
    stack
}

fn send(stack: &Stack, method: &str, path: &str, token: Option<&str>, headers: &[(&str, &str)]) -> Reply {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut all = headers.to_vec();
    all.extend(authorization.as_deref().map(|value| ("authorization", value)));
    http::send(method, &format!("{}{path}", stack.url(0)), &all, None).unwrap()
}

fn issue(stack: &Stack, token: Option<&str>, headers: &[(&str, &str)]) -> Reply {
    send(stack, "POST", "/v1/coupon/issue?campaign=spring", token, headers)
}

fn coupons(stack: &Stack, token: Option<&str>, headers: &[(&str, &str)]) -> Reply {
    send(stack, "GET", "/v1/coupons", token, headers)
}

/// Status and code; every refusal is a problem that nobody keeps.
fn refusal(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    assert!(reply.header("content-length").is_some(), "{reply:?}");
    (reply.status, reply.code())
}

fn missing_user() -> (u16, String) {
    (401, "missing_user".to_owned())
}

#[test]
fn users_are_who_their_token_says() {
    let login = Login::ours();
    let stack = stack_that_believes(&login);
    let [alice, bob, mallory] = ["alice", "auth0|bob", "mallory"].map(|user| login.user(user));

    assert_eq!(issue(&stack, Some(&alice), &[]).status, 201);
    for own in
        [vec![("x-user-id", "alice")], vec![("x-user-id", "alice"), ("X-User-Id", "eve")], vec![("x_user_id", "eve")]]
    {
        // The second and third time it is Bob who has his coupon.
        let reply = issue(&stack, Some(&bob), &own);
        assert!(reply.status == 201 || reply.code() == "already_issued", "{own:?}: {reply:?}");
        assert_eq!(refusal(&issue(&stack, None, &own)), missing_user(), "{own:?}");
        assert_eq!(refusal(&coupons(&stack, None, &own)), missing_user(), "{own:?}");
        assert_eq!(coupons(&stack, Some(&mallory), &own).json()["coupons"], json!([]), "{own:?}");
    }
    assert_eq!(coupons(&stack, Some(&alice), &[]).json()["coupons"].as_array().unwrap().len(), 1);
    let users = stack.sql("SELECT user_id FROM issued_coupons ORDER BY number").unwrap();
    assert_eq!(users, [["alice"], ["auth0|bob"]]);
}

#[test]
fn a_token_that_does_not_hold_is_refused_before_the_origin() {
    let login = Login::ours();
    let stack = stack_that_believes(&login);
    let es256 = json!({"alg": "ES256", "kid": KID});
    let good = login.user("alice");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let others_claims = encode(&claims(json!({"sub": "bob"})));
    let rows = [
        ("forged", Login::somebody_else_s().user("alice")),
        ("somebody else's claims under a good signature", format!("{header}.{others_claims}.{signature}")),
        ("no signature", format!("{signed}.")),
        ("no algorithm", format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&claims(json!({}))))),
        ("another algorithm", login.sign(&json!({"alg": "HS256", "kid": KID}), &claims(json!({})))),
        ("an unknown key", login.sign(&json!({"alg": "ES256", "kid": "other"}), &claims(json!({})))),
        ("expired", login.token(json!({"exp": in_seconds(-60)}))),
        ("without an end", login.token(json!({"exp": null}))),
        ("not yet valid", login.token(json!({"nbf": in_seconds(300)}))),
        ("of another issuer", login.token(json!({"iss": "https://evil.example"}))),
        ("of no issuer", login.token(json!({"iss": null}))),
        ("for another audience", login.token(json!({"aud": "shop"}))),
        ("for nobody", login.token(json!({"aud": null}))),
        ("claims that are no object", login.sign(&es256, &json!("alice"))),
        ("no token at all", "alice".to_owned()),
    ];
    let before = stack.admin(0).origin_requests().unwrap();
    for (name, token) in &rows {
        for reply in [issue(&stack, Some(token), &[("x-user-id", "alice")]), coupons(&stack, Some(token), &[])] {
            assert_eq!(refusal(&reply), missing_user(), "{name}: {reply:?}");
            let challenge = reply.header("www-authenticate").unwrap_or_default();
            assert!(challenge.ends_with("error=\"invalid_token\""), "{name}: {reply:?}");
        }
    }
    // Somewhere else than in its header a token is none.
    let elsewhere = format!("/v1/coupon/issue?campaign=spring&access_token={good}");
    assert_eq!(refusal(&send(&stack, "POST", &elsewhere, None, &[])), missing_user());
    for other in ["Basic YWxpY2U6", "Bearer", &good] {
        let reply = issue(&stack, None, &[("authorization", other)]);
        assert_eq!(refusal(&reply), missing_user(), "{other}: {reply:?}");
    }
    // Envoy's refusal and the filter's are one problem.
    let mut by_the_filter = issue(&stack, None, &[]).json();
    by_the_filter.as_object_mut().unwrap().remove("campaign");
    assert_eq!(issue(&stack, Some("alice"), &[]).json(), by_the_filter);
    assert_eq!(stack.admin(0).origin_requests().unwrap(), before);
    assert_eq!(issue(&stack, Some(&good), &[]).status, 201);
}

#[test]
fn a_claim_that_is_no_user_is_refused() {
    let login = Login::ours();
    let stack = stack_that_believes(&login);
    assert_eq!(issue(&stack, Some(&login.user("alice")), &[]).status, 201);
    let invalid = (400, "invalid_user".to_owned());
    let rows = [
        (json!("alice smith"), &invalid),
        (json!("alice,bob"), &invalid),
        (json!("alice/1"), &invalid),
        (json!("älice"), &invalid),
        (json!("a".repeat(129)), &invalid),
        (json!(""), &missing_user()),
        (json!(null), &missing_user()),
        (json!({"id": "alice"}), &missing_user()),
        (json!(["alice"]), &missing_user()),
    ];
    for (sub, expected) in rows {
        let token = login.token(json!({ "sub": sub }));
        for reply in [issue(&stack, Some(&token), &[]), coupons(&stack, Some(&token), &[])] {
            assert_eq!(&refusal(&reply), expected, "{sub}: {reply:?}");
        }
    }
    // An issuer that lets users choose such names must not let them into other headers either.
    for sub in [
        "mallory\r\nx-user-id: alice",
        "mallory\nx-user-id: alice",
        "mallory\0",
        "\r\n\r\nGET /v1/coupons HTTP/1.1\r\n",
    ] {
        let token = login.user(sub);
        for reply in [issue(&stack, Some(&token), &[]), coupons(&stack, Some(&token), &[])] {
            assert_eq!(refusal(&reply), invalid, "{sub:?}: {reply:?}");
        }
    }
    assert_eq!(stack.sql("SELECT user_id FROM issued_coupons").unwrap(), [["alice"]]);
    assert_eq!(stack.admin(0).sum(r"wasm\..*vm_reload.*").unwrap(), 0);
}

#[test]
fn sold_out_is_said_to_those_without_a_token_and_verifies_a_token_once() {
    let login = Login::ours();
    let stack = stack_that_believes(&login);
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(issue(&stack, Some(&login.user("alice")), &[]).status, 201);
    eventually(Duration::from_secs(5), "sold out", || issue(&stack, None, &[]).code() == "sold_out");

    let late = login.user("late");
    let misses = || stack.admin(0).stat("http.gateway.jwt_authn.jwt_cache_miss").unwrap();
    let before = misses();
    for _ in 0..50 {
        assert_eq!(issue(&stack, Some(&late), &[]).code(), "sold_out");
        assert_eq!(issue(&stack, None, &[]).code(), "sold_out");
    }
    // Each of the two workers has to see it for itself.
    assert!(misses() - before <= 2, "{} verifications", misses() - before);
}

#[test]
fn a_count_is_everybody_s() {
    let login = Login::ours();
    let stack = stack_that_believes(&login);
    let expired = login.token(json!({"exp": in_seconds(-60)}));
    for token in [None, Some(expired.as_str()), Some("no token")] {
        let reply = send(&stack, "GET", "/v1/coupon/count?campaign=spring", token, &[]);
        assert_eq!((reply.status, &reply.json()["remaining"]), (200, &json!(10)), "{reply:?}");
    }
}

#[test]
fn keys_that_cannot_be_fetched_are_not_the_user_s_fault() {
    // Without backends the cluster has nobody to answer.
    let stack = stack(0, |provider| {
        let provider = provider.as_object_mut().unwrap();
        provider.remove("local_jwks");
        let uri = json!({"uri": "https://login.example/keys", "cluster": "origin", "timeout": "1s"});
        provider.insert("remote_jwks".to_owned(), json!({ "http_uri": uri }));
    });
    let reply = issue(&stack, Some(&Login::ours().user("alice")), &[]);
    assert_eq!(refusal(&reply), (503, "unavailable".to_owned()), "{reply:?}");
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds) && reply.json()["retry_after_ms"] == seconds * 1000, "{reply:?}");
}

#[test]
fn as_shipped_nobody_gets_in() {
    let stack = stack(0, |_| {});
    let reply = issue(&stack, Some(&Login::ours().user("alice")), &[]);
    assert_eq!(refusal(&reply), missing_user(), "{reply:?}");
}

#[test]
fn the_two_configurations_differ_in_the_authentication_alone() {
    let plain = envoy_config::load(&shipped("envoy.yaml")).unwrap();
    let mut jwt = envoy_config::load(&shipped("envoy.jwt.yaml")).unwrap();
    let manager = http_connection_manager(&mut jwt);
    let filters = manager["http_filters"].as_array_mut().unwrap();
    let names: Vec<String> =
        filters.drain(..2).map(|filter| filter["name"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(names, ["envoy.filters.http.header_mutation", "envoy.filters.http.jwt_authn"]);
    let mappers = manager["local_reply_config"]["mappers"].as_array_mut().unwrap();
    for (mapper, about) in mappers.drain(..3).zip(["Jwks", "jwt_authn_access_denied", "x-user-id"]) {
        assert!(mapper["filter"].to_string().contains(about), "{mapper}");
    }
    same("", &plain, &jwt);
}

/// Names the place, and not the whole of two files.
fn same(place: &str, plain: &Value, jwt: &Value) {
    match (plain, jwt) {
        (Value::Object(one), Value::Object(other)) => {
            assert!(one.keys().eq(other.keys()), "envoy.yaml and envoy.jwt.yaml differ in the fields at {place}");
            one.iter().for_each(|(key, value)| same(&format!("{place}/{key}"), value, &other[key]));
        }
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len(), "envoy.yaml and envoy.jwt.yaml differ in number at {place}");
            one.iter().zip(other).enumerate().for_each(|(at, (one, other))| same(&format!("{place}/{at}"), one, other));
        }
        _ => assert_eq!(plain, jwt, "envoy.yaml and envoy.jwt.yaml differ at {place}"),
    }
}
