//! Sealed messages: a question to one node and its answer, which only nodes with the admin token can make and read.
//!
//! AES-256-GCM with a key that is derived from the admin token, which all nodes share. A question is bound to the node
//! that is asked and to a time, and is answered once; an answer is bound to its question. So a program that can use NATS,
//! but does not have the token, can neither ask, answer, read nor repeat. It knows nothing of what is asked.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;

use crate::derived_key::{Purpose, derive_key};
use crate::protocol::Time;

/// The version of sealed messages, their first byte.
const VERSION: u8 = 1;

/// How far apart, in ms, the wall clock of a question may be from that of the node that is asked.
const AGE_LIMIT_MS: u64 = 60_000;

/// How long, in ms, a question is remembered: it may be from a clock that is ahead.
const REMEMBER_MS: u64 = 2 * AGE_LIMIT_MS;

/// The most questions that are remembered: 34 a second, in 200 KB.
const MOST_REMEMBERED: usize = 4_096;

/// The secret that all nodes of a cluster have, by which they seal messages. Clones share it.
#[derive(Clone)]
pub(crate) struct SealingKey(Arc<RandomizedNonceKey>);

impl SealingKey {
    /// Derives the key from the admin token, which all nodes share, and the name of the cluster.
    #[expect(clippy::expect_used, reason = "it has the length of a key")]
    pub(crate) fn derive(admin_token: &str, cluster: &str) -> Self {
        let key = derive_key(Purpose::Questions, admin_token, cluster);
        Self(Arc::new(RandomizedNonceKey::new(&AES_256_GCM, &key).expect("a key of 32 bytes")))
    }

    /// Seals a question to a node. None if the system has no random numbers.
    pub(crate) fn seal_question(&self, node: &str, sent: Time, text: &[u8]) -> Option<Bytes> {
        self.seal(&question_context(node), [&sent.millis().to_le_bytes(), text].concat())
    }

    /// Seals the answer to a question, as it came. None if the system has no random numbers.
    pub(crate) fn seal_answer(&self, question: &[u8], text: Vec<u8>) -> Option<Bytes> {
        self.seal(&answer_context(question), text)
    }

    /// Opens the answer to a question, as it was sent. None if it is not by a node with the key, or of another question.
    pub(crate) fn open_answer(&self, question: &[u8], answer: &[u8]) -> Option<Vec<u8>> {
        self.open(&answer_context(question), answer).map(|(_, text)| text)
    }

    fn seal(&self, context: &[u8], mut text: Vec<u8>) -> Option<Bytes> {
        let nonce = self.0.seal_in_place_append_tag(Aad::from(context), &mut text).ok()?;
        Some([&[VERSION][..], nonce.as_ref(), &text].concat().into())
    }

    fn open(&self, context: &[u8], message: &[u8]) -> Option<([u8; NONCE_LEN], Vec<u8>)> {
        let (nonce, sealed) = message.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let mut sealed = sealed.to_vec();
        let length = {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            self.0.open_in_place(nonce, Aad::from(context), &mut sealed).ok()?.len()
        };
        sealed.truncate(length);
        Some((*nonce, sealed))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

fn question_context(node: &str) -> Vec<u8> {
    [b"question\0", node.as_bytes()].concat()
}

fn answer_context(question: &[u8]) -> Vec<u8> {
    [b"answer\0", question].concat()
}

/// Why a question is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It was not made with the key of this node, or for another node.
    #[error("it was not sealed for this node with the same ADMIN_TOKEN and CLUSTER")]
    Sealed,
    /// It is old or of the future, by the clock of the node that asks.
    #[error("the clock of the node that asks is more than 60 s apart from the one of this node")]
    Time,
    /// It was answered before.
    #[error("it was sent twice")]
    Repeated,
    /// So many questions came that not all of them can be remembered.
    #[error("more than 4096 questions came in two minutes")]
    TooMany,
}

/// The questions to this node: each one is opened once.
#[derive(Debug)]
pub(crate) struct Questions {
    key: SealingKey,
    node: String,
    /// When each question came, by the monotonic clock in ms.
    seen: HashMap<[u8; NONCE_LEN], u64>,
}

impl Questions {
    /// Questions to the node of this name.
    pub(crate) fn new(key: SealingKey, node: String) -> Self {
        Self { key, node, seen: HashMap::new() }
    }

    /// Opens a question that came at `now`, by the monotonic clock in ms, and at `wall`, by the wall clock.
    pub(crate) fn open(&mut self, question: &[u8], now: u64, wall: Time) -> Result<Vec<u8>, Refused> {
        let (nonce, text) = self.key.open(&question_context(&self.node), question).ok_or(Refused::Sealed)?;
        let (sent, text) = text.split_first_chunk().ok_or(Refused::Sealed)?;
        if u64::from_le_bytes(*sent).abs_diff(wall.millis()) > AGE_LIMIT_MS {
            return Err(Refused::Time);
        }
        self.seen.retain(|_, at| now.saturating_sub(*at) <= REMEMBER_MS);
        if self.seen.contains_key(&nonce) {
            return Err(Refused::Repeated);
        }
        if self.seen.len() >= MOST_REMEMBERED {
            return Err(Refused::TooMany);
        }
        self.seen.insert(nonce, now);
        Ok(text.to_vec())
    }

    /// Seals the answer to a question.
    pub(crate) fn seal_answer(&self, question: &[u8], text: Vec<u8>) -> Option<Bytes> {
        self.key.seal_answer(question, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealingKey {
        SealingKey::derive("the-admins-token", "test")
    }

    fn noon() -> Time {
        Time::from_millis(1_796_083_200_000)
    }

    fn asked() -> (Questions, Bytes) {
        let question = key().seal_question("a", noon(), b"who is there?").unwrap();
        (Questions::new(key(), "a".to_owned()), question)
    }

    #[test]
    fn question_and_answer_are_read_by_nodes_with_the_key_and_are_no_clear_text() {
        let (mut a, question) = asked();
        assert_eq!(a.open(&question, 0, noon()).unwrap(), b"who is there?");
        let answer = a.seal_answer(&question, b"ann".to_vec()).unwrap();
        assert_eq!(key().open_answer(&question, &answer).unwrap(), b"ann");
        let is_in = |text: &[u8], message: &[u8]| message.windows(text.len()).any(|part| part == text);
        assert!(!is_in(b"who", &question) && !is_in(b"ann", &answer));
    }

    #[test]
    fn answer_of_an_earlier_version_is_read() {
        let answer = b"\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x8b\xaa\x2b\x50\xda\x21\xf8\x1e\xd6\xa5\x6b\x6d\x6b\x3d\x9e\x16\xbb\x25\x04";
        assert_eq!(key().open_answer(b"who?", answer).unwrap(), b"ann");
    }

    #[test]
    fn question_without_the_key_or_for_another_node_or_cluster_is_refused() {
        let (mut a, question) = asked();
        let sealed = |key: SealingKey, node| key.seal_question(node, noon(), b"who is there?").unwrap();
        let mut changed = question.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        for wrong in [
            &sealed(SealingKey::derive("another-token", "test"), "a")[..],
            &sealed(SealingKey::derive("the-admins-token", "other"), "a"),
            &sealed(key(), "b"),
            &changed,
            &question[..question.len() - 1],
            &question[..9],
            br#"{"room":"lobby","after":null,"limit":10}"#,
            b"",
        ] {
            assert_eq!(a.open(wrong, 0, noon()), Err(Refused::Sealed));
        }
        assert!(a.open(&question, 0, noon()).is_ok());
    }

    #[test]
    fn question_is_answered_once_and_only_within_a_minute() {
        let (mut a, question) = asked();
        for apart in [noon().plus(60_001), noon().minus(60_001)] {
            assert_eq!(a.open(&question, 0, apart), Err(Refused::Time));
        }
        // By the clock of this node it comes 60 s before it was sent, so it is in time for two minutes.
        assert!(a.open(&question, 0, noon().minus(60_000)).is_ok());
        assert_eq!(a.open(&question, 120_000, noon().plus(60_000)), Err(Refused::Repeated));
        assert_eq!(a.open(&question, 120_001, noon().plus(60_001)), Err(Refused::Time));
    }

    #[test]
    fn questions_that_are_remembered_are_bounded() {
        let (mut a, question) = asked();
        for _ in 0..MOST_REMEMBERED {
            a.open(&key().seal_question("a", noon(), b"").unwrap(), 7, noon()).unwrap();
        }
        assert_eq!(a.open(&question, 7, noon()), Err(Refused::TooMany));
        assert!(a.open(&question, 7 + REMEMBER_MS + 1, noon()).is_ok());
        assert_eq!(a.seen.len(), 1);
    }

    #[test]
    fn answer_of_another_question_or_without_the_key_is_refused() {
        let (a, question) = asked();
        let again = key().seal_question("a", noon(), b"who is there?").unwrap();
        let answer = a.seal_answer(&again, b"ann".to_vec()).unwrap();
        assert_eq!(key().open_answer(&question, &answer), None);
        let forged = SealingKey::derive("another-token", "test").seal_answer(&question, b"eve".to_vec());
        assert_eq!(key().open_answer(&question, &forged.unwrap()), None);
        assert_eq!(key().open_answer(&question, &question), None, "the question itself");
        assert_eq!(key().open_answer(&question, b"[]"), None);
    }
}
