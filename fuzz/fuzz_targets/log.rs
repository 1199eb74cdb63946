#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| breathing_room_fuzz::log::check(bytes));
