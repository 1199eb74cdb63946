//! The keys of tokens: a secret that is shared with the app, or public keys from a file (RFC 7517).
//!
//! The type of a key determines its one algorithm; the header of a token never does. So a token cannot use a public key
//! as a secret (algorithm confusion), or have no signature.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header, Validation, decode, errors};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Tokens;

/// The fewest bytes of a secret: the length of the hash of HS256 (RFC 7518, section 3.2).
const SECRET_MIN: usize = 32;

/// The settings of visitor tokens. Without keys the hub takes no tokens, and everyone may join.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// The secret that is shared with the issuer of tokens.
    pub secret: Option<Secret>,
    /// The file with public keys.
    pub jwks: Option<PathBuf>,
    /// The audience that tokens must have.
    pub audience: Option<String>,
}

/// The configured secret. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(String);

/// Why the settings of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// The secret is short enough to guess.
    #[error("TOKEN_SECRET: must have at least {SECRET_MIN} bytes")]
    ShortSecret,
    /// There are both a secret and public keys.
    #[error("TOKEN_SECRET and TOKEN_JWKS: only one of them may be set")]
    Both,
    /// There is an audience and no key.
    #[error("TOKEN_AUDIENCE: needs TOKEN_SECRET or TOKEN_JWKS")]
    Neither,
    /// The file cannot be read.
    #[error("TOKEN_JWKS: cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not a JSON Web Key Set.
    #[error("TOKEN_JWKS: must be a JSON Web Key Set: {0}")]
    NotASet(serde_json::Error),
    /// A key of the set cannot be used.
    #[error("TOKEN_JWKS: key {index}: {rule}")]
    Key {
        /// The index of the key, from 0.
        index: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The set has no key for signatures.
    #[error("TOKEN_JWKS: has no key for RS256, ES256 or EdDSA")]
    NoKey,
    /// A token cannot be signed.
    #[error("cannot sign: {0}")]
    Sign(errors::Error),
}

/// A key and its one algorithm.
#[derive(Debug, Clone)]
pub struct TokenKey {
    id: Option<String>,
    decoding: DecodingKey,
    /// Only for the algorithm. It does not check claims, since it would use the machine's clock.
    validation: Validation,
}

impl Config {
    /// Reads the keys. Returns none if no key is configured.
    ///
    /// # Errors
    /// The settings contradict each other, or the keys cannot be used.
    pub fn open(self) -> Result<Option<Tokens>, BadKeys> {
        let keys = match (self.secret, self.jwks) {
            (Some(_), Some(_)) => return Err(BadKeys::Both),
            (Some(secret), None) => vec![TokenKey::secret(&secret)?],
            (None, Some(path)) => read(&path)?,
            (None, None) if self.audience.is_some() => return Err(BadKeys::Neither),
            (None, None) => return Ok(None),
        };
        Ok(Some(Tokens::new(keys, self.audience)))
    }
}

impl From<String> for Secret {
    /// Checks nothing yet, since clap's errors would show the value.
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Secret {
    /// The text itself, for a request that brings it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn bytes(&self) -> Result<&[u8], BadKeys> {
        if self.0.len() < SECRET_MIN { Err(BadKeys::ShortSecret) } else { Ok(self.0.as_bytes()) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl TokenKey {
    fn new(id: Option<String>, algorithm: Algorithm, decoding: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { id, decoding, validation }
    }

    /// Returns the key of a shared secret, for HS256.
    ///
    /// # Errors
    /// The secret is too short.
    pub fn secret(secret: &Secret) -> Result<Self, BadKeys> {
        Ok(Self::new(None, Algorithm::HS256, DecodingKey::from_secret(secret.bytes()?)))
    }

    /// Returns the keys of a JSON Web Key Set that are for a supported signature. The set may have others, but no
    /// secrets.
    ///
    /// # Errors
    /// The text is not a set, a key cannot be used, or none is for a supported signature.
    pub fn set(jwks: &str) -> Result<Vec<Self>, BadKeys> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Jwk>,
        }
        let set: Set = serde_json::from_str(jwks).map_err(BadKeys::NotASet)?;
        let keys = set.keys.iter().enumerate().filter_map(|(index, jwk)| {
            let key = Self::public(jwk).transpose()?;
            Some(key.map_err(|rule| BadKeys::Key { index, rule }))
        });
        let keys: Vec<Self> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(BadKeys::NoKey) } else { Ok(keys) }
    }

    /// Returns a public key, or none if it is not for a supported signature.
    fn public(jwk: &Jwk) -> Result<Option<Self>, &'static str> {
        let (algorithm, name) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            AlgorithmParameters::OctetKey(_) => return Err("must be a public key, and this is a secret"),
            _ => return Ok(None),
        };
        let is_supported = jwk.common.key_algorithm.is_none_or(|named| named == name)
            && jwk.common.public_key_use.as_ref().is_none_or(|named| *named == PublicKeyUse::Signature);
        if !is_supported {
            return Ok(None);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| "must be in base64url")?;
        match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, .. } if n.len() < 256 => {
                return Err("must have at least 2048 bits");
            }
            DecodingKeyKind::SecretOrDer(bytes) if !matches!(bytes.len(), 32 | 65) => {
                return Err("has coordinates of a wrong length");
            }
            _ => {}
        }
        Ok(Some(Self::new(jwk.common.key_id.clone(), algorithm, key)))
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// Whether the key may have signed a token with this header. Key ids are hints: either side may lack one.
    pub(super) fn may_have_signed(&self, header: &Header) -> bool {
        let same_name = match (&self.id, &header.kid) {
            (Some(ours), Some(named)) => ours == named,
            _ => true,
        };
        same_name && self.is_for(header.alg)
    }

    /// Returns the claims of a token if this key has signed it.
    pub(super) fn verify(&self, token: &str) -> errors::Result<Box<RawValue>> {
        decode(token, &self.decoding, &self.validation).map(|opened| opened.claims)
    }
}

fn read(path: &Path) -> Result<Vec<TokenKey>, BadKeys> {
    let text =
        std::fs::read_to_string(path).map_err(|source| BadKeys::File { path: path.to_path_buf(), source })?;
    TokenKey::set(&text)
}
