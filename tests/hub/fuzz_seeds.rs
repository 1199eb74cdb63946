//! The seeds of the fuzz targets: each check passes for each of its seeds, and for random changes of them.
//!
//! The changes are the same in every run.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Changes of each seed.
const CHANGES: usize = 40;

/// The seeds of a target, by the order of their names.
fn seeds_of(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{target} has seeds");
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn fuzz_targets_accept_their_seeds() {
    for (name, check) in targets::TARGETS {
        for seed in seeds_of(name) {
            check(&seed);
        }
    }
}

#[test]
fn fuzz_targets_accept_changed_seeds() {
    for (name, check) in targets::TARGETS {
        let (seeds, mut random) = (seeds_of(name), StdRng::seed_from_u64(1));
        for seed in &seeds {
            for _ in 0..CHANGES {
                let changed = change(seed.clone(), &seeds, &mut random);
                println!("{name}: {:?}", changed.escape_ascii().to_string());
                check(&changed);
            }
        }
    }
}

/// Changes bytes, removes or repeats a part, or puts a part of another seed in.
fn change(mut seed: Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let start = random.random_range(0..=seed.len());
        let end = random.random_range(start..=seed.len());
        match (random.random_range(0..5), seed.get_mut(start)) {
            (0, Some(byte)) => *byte = random.random(),
            (1, Some(byte)) => *byte ^= 1 << random.random_range(0..8),
            (2, _) => drop(seed.drain(start..end)),
            (3, _) => {
                let part = seed.get(start..end).unwrap().to_vec();
                seed.splice(start..start, part);
            }
            _ => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                seed.splice(start..end, other.iter().skip(from).copied());
            }
        }
    }
    seed
}
