//! A file that is sent to another node: its size, its digest, and its bytes in parts.
//!
//! All file access is on blocking threads.

use std::fs::File;
use std::io::{self, Read, Seek};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of a part.
const PART_BYTES: usize = 256 * 1024;

/// An open file, which is sent from its start. It may hold a turn, so that no other is sent meanwhile.
#[derive(Debug)]
pub(crate) struct SentFile {
    file: File,
    bytes: u64,
    digest: [u8; 32],
    _turn: Option<OwnedSemaphorePermit>,
}

impl SentFile {
    /// Reads a file to its end, for the digest, and returns to its start.
    /// Errors: the system cannot open or read the file.
    pub(super) async fn open(
        open: impl FnOnce() -> io::Result<File> + Send + 'static,
        turn: Option<OwnedSemaphorePermit>,
    ) -> io::Result<Self> {
        blocking(move || {
            let (mut file, mut part) = (open()?, vec![0; PART_BYTES]);
            let (mut digest, mut bytes) = (Sha256::new(), 0);
            loop {
                let read = file.read(&mut part)?;
                if read == 0 {
                    break;
                }
                digest.update(part.get(..read).unwrap_or_default());
                bytes += read as u64;
            }
            file.rewind()?;
            Ok(Self { file, bytes, digest: digest.finalize().into(), _turn: turn })
        })
        .await
    }

    /// The size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The SHA-256 of all bytes.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The SHA-256 in hexadecimal.
    pub(crate) fn checksum(&self) -> String {
        format!("{:x}", Bytes::copy_from_slice(&self.digest))
    }

    /// Reads the next part; none at the end.
    /// Errors: the system cannot read the file.
    pub(crate) async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        blocking(move || {
            let mut part = vec![0; PART_BYTES];
            let read = self.file.read(&mut part)?;
            part.truncate(read);
            Ok((read > 0).then(|| (part.into(), self)))
        })
        .await
    }
}

/// Runs blocking file access on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
