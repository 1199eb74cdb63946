//! Valid and invalid tokens: each test is one way in which a token may be forged, or for another visitor, room, time or
//! audience.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::super::keys::Config;
use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn now() -> Time {
    Time::from_millis(1_800_000_000_000)
}

fn secret() -> Secret {
    Secret::from(SECRET.to_owned())
}

/// A hub with the secret.
fn hub() -> Tokens {
    Tokens::new(vec![TokenKey::secret(&secret()).unwrap()], None)
}

/// A hub with these public keys.
fn hub_of(keys: &Value) -> Tokens {
    Tokens::new(TokenKey::set(&json!({ "keys": keys }).to_string()).unwrap(), None)
}

fn good() -> Value {
    json!({ "sub": "ann", "exp": 1_800_000_600 })
}

/// The valid claims with one changed or added.
fn with(claim: &str, value: impl Into<Value>) -> Value {
    let mut claims = good();
    claims[claim] = value.into();
    claims
}

fn without(claim: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(claim);
    claims
}

fn signed(claims: &Value) -> String {
    signed_with(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn signed_with(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).unwrap()
}

/// A new private key, and its public key as a set has it.
fn key_pair(algorithm: Algorithm) -> (EncodingKey, Value) {
    let random = SystemRandom::new();
    let key = match algorithm {
        Algorithm::RS256 => rsa(KeySize::Rsa2048),
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            EncodingKey::from_ec_der(pair.as_ref())
        }
        _ => EncodingKey::from_ed_der(Ed25519KeyPair::generate_pkcs8v1(&random).unwrap().as_ref()),
    };
    let public = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
    (key, public)
}

fn rsa(size: KeySize) -> EncodingKey {
    let pair = RsaKeyPair::generate(size).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    // The key of RFC 8017 follows after 26 bytes.
    EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..])
}

fn named(public: &Value, id: &str) -> Value {
    let mut public = public.clone();
    public["kid"] = id.into();
    public
}

#[test]
fn valid_token_has_visitor_room_and_expiry() {
    let claims = hub().verify(&signed(&with("room", "lobby")), now()).unwrap();
    let lobby = RoomId::try_from("lobby").unwrap();
    let expires = Time::from_millis(1_800_000_600_000);
    let visitor = VisitorId::try_from("ann").unwrap();
    assert_eq!(claims, Claims { visitor: visitor.clone(), room: Some(lobby.clone()), expires });
    assert_eq!(claims.expires_with_leeway(), expires.plus(30_000));
    assert!(claims.for_room(&lobby).is_ok() && claims.for_visitor(&visitor).is_ok());
    assert_eq!(claims.for_room(&RoomId::try_from("garden").unwrap()), Err(BadToken::Room));
    assert_eq!(claims.for_visitor(&VisitorId::try_from("bob").unwrap()), Err(BadToken::Visitor));
    let everywhere = hub().verify(&signed(&good()), now()).unwrap();
    assert!(everywhere.for_room(&lobby).is_ok());
}

#[test]
fn token_expires_30_s_after_its_exp() {
    let verify = |claims: &Value, now| hub().verify(&signed(claims), Time::from_millis(now)).map(drop);
    assert_eq!(verify(&good(), 1_800_000_629_999), Ok(()));
    assert_eq!(verify(&good(), 1_800_000_630_000), Err(BadToken::Expired));
    assert_eq!(verify(&with("exp", 1_800_000_600.5), 1_800_000_630_499), Ok(()));
    assert_eq!(verify(&with("exp", 1_800_000_600.5), 1_800_000_630_500), Err(BadToken::Expired));
    assert_eq!(verify(&with("exp", -1), now().millis()), Err(BadToken::Expired));
    assert_eq!(verify(&with("exp", 1e300), now().millis()), Ok(()));
    // It is valid from 30 s before its nbf.
    let later = with("nbf", 1_800_000_100);
    assert_eq!(verify(&later, 1_800_000_069_999), Err(BadToken::TooEarly));
    assert_eq!(verify(&later, 1_800_000_070_000), Ok(()));
}

#[test]
fn error_names_the_missing_or_invalid_claim() {
    for (claims, words) in [
        (without("exp"), "missing field `exp`"),
        (without("sub"), "missing field `sub`"),
        (with("exp", "soon"), "exp: invalid type"),
        (with("exp", Value::Null), "exp: invalid type"),
        (with("nbf", "soon"), "nbf: invalid type"),
        (with("sub", "auth0|ann"), "sub: must match"),
        (with("sub", 7), "sub: invalid type"),
        (with("room", "Lobby"), "room: must match"),
        (with("room", json!(["lobby"])), "room: invalid type"),
        (with("aud", 7), "aud: "),
    ] {
        match hub().verify(&signed(&claims), now()) {
            Err(BadToken::Claim(text)) => assert!(text.starts_with(words), "{claims}: {text}"),
            other => panic!("{claims}: {other:?}"),
        }
    }
}

#[test]
fn audience_is_checked_if_one_is_configured() {
    let hub = Tokens::new(vec![TokenKey::secret(&secret()).unwrap()], Some("hub".to_owned()));
    for aud in [json!("hub"), json!(["app", "hub"])] {
        assert!(hub.verify(&signed(&with("aud", aud)), now()).is_ok());
    }
    for aud in [json!("app"), json!("hub2"), json!([]), json!(["app"]), Value::Null] {
        assert_eq!(hub.verify(&signed(&with("aud", aud)), now()), Err(BadToken::Audience));
    }
    assert_eq!(hub.verify(&signed(&good()), now()), Err(BadToken::Audience));
    assert!(self::hub().verify(&signed(&with("aud", "app")), now()).is_ok());
}

#[test]
fn error_of_an_unsigned_or_forged_token_reveals_no_claims() {
    let token = signed(&good());
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();
    let other = EncodingKey::from_secret(b"another secret of more than thirty-two bytes");
    let forged = signed_with(&Header::new(Algorithm::HS256), &good(), &other);
    let bob = signed(&with("sub", "bob"));
    let (bob, _) = bob.rsplit_once('.').unwrap();
    // {"alg":"none"} and {"alg":"HS256","crit":["x"],"x":1}
    let none = "eyJhbGciOiJub25lIn0";
    let critical = "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxfQ";
    for (token, error) in [
        (String::new(), BadToken::Malformed),
        ("a.b".to_owned(), BadToken::Malformed),
        ("a.b.c".to_owned(), BadToken::Malformed),
        (format!("{token}.x"), BadToken::Malformed),
        (format!("{head}.ä"), BadToken::Malformed),
        (format!("{none}.{payload}."), BadToken::Malformed),
        (format!("{none}.{payload}.{signature}"), BadToken::Malformed),
        (format!("{critical}.{payload}.{signature}"), BadToken::Malformed),
        (format!("{head}."), BadToken::Signature),
        (format!("{header}.{payload}.{}", &signature[..20]), BadToken::Signature),
        (format!("{bob}.{signature}"), BadToken::Signature),
        (forged, BadToken::Signature),
        (signed_with(&Header::new(Algorithm::HS512), &good(), &other), BadToken::Malformed),
    ] {
        assert_eq!(hub().verify(&token, now()), Err(error), "{token}");
    }
}

#[test]
fn public_key_verifies_only_tokens_of_its_private_key() {
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let pairs = algorithms.map(key_pair);
    let all: Vec<Value> = pairs.iter().map(|(_, public)| public.clone()).collect();
    let hub = hub_of(&json!(all));
    for (algorithm, (private, public)) in algorithms.into_iter().zip(&pairs) {
        let token = signed_with(&Header::new(algorithm), &good(), private);
        assert!(hub.verify(&token, now()).is_ok(), "{algorithm:?}");
        let (other, _) = key_pair(algorithm);
        let forged = signed_with(&Header::new(algorithm), &good(), &other);
        assert_eq!(hub.verify(&forged, now()), Err(BadToken::Signature), "{algorithm:?}");
        // A hub without this key rejects its algorithm, and a hub with a secret rejects all of them.
        let others: Vec<&Value> = all.iter().filter(|key| *key != public).collect();
        assert_eq!(hub_of(&json!(others)).verify(&token, now()), Err(BadToken::Malformed));
        assert_eq!(self::hub().verify(&token, now()), Err(BadToken::Malformed));
        // Algorithm confusion: a token that is signed with the public key as a secret is invalid.
        for known in [public.to_string(), public["x"].to_string(), public["n"].to_string()] {
            let confused = EncodingKey::from_secret(known.as_bytes());
            let token = signed_with(&Header::new(Algorithm::HS256), &good(), &confused);
            assert_eq!(hub.verify(&token, now()), Err(BadToken::Malformed), "{algorithm:?}");
        }
    }
    // An algorithm of the same family is not accepted.
    let token = signed_with(&Header::new(Algorithm::RS512), &good(), &pairs[0].0);
    assert_eq!(hub.verify(&token, now()), Err(BadToken::Malformed));
}

#[test]
fn key_is_chosen_by_its_id_if_both_sides_have_one() {
    let [(old, old_public), (new, new_public)] = [Algorithm::EdDSA, Algorithm::EdDSA].map(key_pair);
    let hub = hub_of(&json!([named(&old_public, "old"), named(&new_public, "new")]));
    let token = |id: Option<&str>, key| {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        signed_with(&header, &good(), key)
    };
    for (id, key) in [(Some("old"), &old), (Some("new"), &new), (None, &old), (None, &new)] {
        assert!(hub.verify(&token(id, key), now()).is_ok(), "{id:?}");
    }
    for id in ["new", "another"] {
        assert_eq!(hub.verify(&token(Some(id), &old), now()), Err(BadToken::Signature), "{id}");
    }
    assert!(hub_of(&json!([old_public])).verify(&token(Some("any"), &old), now()).is_ok());
}

#[test]
fn key_set_may_have_unsupported_keys_but_no_secrets_and_no_broken_ones() {
    let (_, ed) = key_pair(Algorithm::EdDSA);
    let (_, ec) = key_pair(Algorithm::ES256);
    let with = |key: &Value, field: &str, value: &str| {
        let mut key = key.clone();
        key[field] = value.into();
        key
    };
    let set = |keys: Value| TokenKey::set(&json!({ "keys": keys }).to_string());
    let count = set(json!([
        ed,
        { "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" },
        { "kty": "new", "parameter": 1 },
        with(&ec, "use", "enc"),
        with(&ec, "alg", "ES384"),
    ]));
    assert_eq!(count.unwrap().len(), 1);
    for (keys, words) in [
        (json!([]), "has no key for"),
        (json!([with(&ec, "use", "enc")]), "has no key for"),
        (json!([ed, { "kty": "oct", "k": "AAAA" }]), "key 1: must be a public key"),
        (json!([with(&ed, "x", "AAAA")]), "key 0: has coordinates of a wrong length"),
        (json!([with(&ec, "y", "AAAA")]), "key 0: has coordinates of a wrong length"),
        (json!([with(&ed, "x", "ä")]), "key 0: must be in base64url"),
        (json!([rsa_1024()]), "key 0: must have at least 2048 bits"),
        (json!({}), "must be a JSON Web Key Set"),
    ] {
        let error = set(keys).unwrap_err().to_string();
        assert!(error.starts_with("TOKEN_JWKS: ") && error.contains(words), "{error}");
    }
}

/// A public key that is too short. Written by hand, since no generator creates one any more.
fn rsa_1024() -> Value {
    json!({ "kty": "RSA", "n": "A".repeat(171), "e": "AQAB" })
}

#[test]
fn contradicting_settings_are_an_error_at_the_start() {
    let config = |secret: Option<&str>, jwks: Option<&str>, audience: Option<&str>| Config {
        secret: secret.map(str::to_owned).map(Secret::from),
        jwks: jwks.map(Into::into),
        audience: audience.map(str::to_owned),
    };
    assert!(config(None, None, None).open().unwrap().is_none());
    assert!(config(Some(SECRET), None, Some("hub")).open().unwrap().is_some());
    for (config, words) in [
        (config(Some(&SECRET[..31]), None, None), "at least 32 bytes"),
        (config(Some(SECRET), Some("keys.json"), None), "only one of them"),
        (config(None, None, Some("hub")), "needs TOKEN_SECRET or TOKEN_JWKS"),
        (config(None, Some("/nowhere/keys.json"), None), "cannot read /nowhere/keys.json"),
    ] {
        let error = config.open().unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("thirty-two"), "{error}");
    }
    assert!(!format!("{:?}", config(Some(SECRET), None, None)).contains("thirty-two"));
}

#[test]
fn signed_claims_verify() {
    let room = Some(RoomId::try_from("lobby").unwrap());
    let claims = Claims {
        visitor: VisitorId::try_from("ann").unwrap(),
        room,
        expires: Time::from_millis(1_800_000_600_000),
    };
    let hub = Tokens::new(vec![TokenKey::secret(&secret()).unwrap()], Some("hub".to_owned()));
    let token = claims.sign(&secret(), Some("hub")).unwrap();
    assert_eq!(hub.verify(&token, now()), Ok(claims));
}
