//! The migrations, oldest first. Each is a file in `migrations/` that is never changed.
//!
//! They are spelled out, since `sqlx::migrate!` would have SQLite and sqlx built twice: for the compiler too.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType};

/// Version, description and contents, of which the file's name has the first two.
const FILES: [(i64, &str, &str); 4] = [
    (1, "history", include_str!("../../../migrations/0001_history.sql")),
    (2, "rollups", include_str!("../../../migrations/0002_rollups.sql")),
    (3, "seats", include_str!("../../../migrations/0003_seats.sql")),
    (4, "holds", include_str!("../../../migrations/0004_holds.sql")),
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
    fn every_file_is_a_migration() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, FILES.map(|(version, description, _)| format!("{version:04}_{description}.sql")));
    }
}
