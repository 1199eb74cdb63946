//! The migrations, oldest first. Each is a file in `migrations/` that never changes.
//!
//! They are listed by hand: `sqlx::migrate!` would compile SQLite and sqlx a second time, as build dependencies.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType};

/// Version, description and SQL. The file name is made of the first two.
const FILES: [(i64, &str, &str); 12] = [
    (1, "history", include_str!("../../../migrations/0001_history.sql")),
    (2, "rollups", include_str!("../../../migrations/0002_rollups.sql")),
    (3, "seats", include_str!("../../../migrations/0003_seats.sql")),
    (4, "holds", include_str!("../../../migrations/0004_holds.sql")),
    (5, "bounded", include_str!("../../../migrations/0005_bounded.sql")),
    (6, "sits", include_str!("../../../migrations/0006_sits.sql")),
    (7, "sample_nodes", include_str!("../../../migrations/0007_sample_nodes.sql")),
    (8, "record_sums", include_str!("../../../migrations/0008_record_sums.sql")),
    (9, "log", include_str!("../../../migrations/0009_log.sql")),
    (10, "own_position", include_str!("../../../migrations/0010_own_position.sql")),
    (11, "erased_visitors", include_str!("../../../migrations/0011_erased_visitors.sql")),
    (12, "text_hashes", include_str!("../../../migrations/0012_text_hashes.sql")),
];

pub(super) fn all() -> Vec<Migration> {
    let migration = |(version, description, sql): (_, &'static str, &'static str)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    FILES.into_iter().map(migration).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_migration_file_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, FILES.map(|(version, description, _)| format!("{version:04}_{description}.sql")));
    }
}
