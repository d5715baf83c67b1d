//! Random strings in the forms of the two services, from a seed.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes ids. The same seed makes the same ones in the same order.
#[derive(Debug)]
pub(crate) struct Ids {
    random: Mutex<fastrand::Rng>,
}

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }

    /// A UUID of version 4.
    pub(crate) fn uuid(&self) -> String {
        let bits = self.with(|random| random.u128(..));
        let bits = bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
        let hex = format!("{bits:032x}");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        parts.join("-")
    }

    /// So many hexadecimal digits.
    pub(crate) fn hex(&self, digits: usize) -> String {
        self.with(|random| (0..digits).map(|_| random.digit(16)).collect())
    }

    /// So many letters and digits.
    pub(crate) fn letters(&self, count: usize) -> String {
        self.with(|random| (0..count).map(|_| random.alphanumeric()).collect())
    }

    fn with<T>(&self, make: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        make(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Seconds since 1970 as ISO 8601, to the second.
pub(crate) fn iso_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.000Z", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_services_forms() {
        let ids = Ids::new(1);
        let uuid = ids.uuid();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
        assert_eq!(Ids::new(1).uuid(), uuid);
        assert_ne!(ids.uuid(), uuid);
        assert_eq!(ids.hex(64).len(), 64);
    }

    #[test]
    fn times_are_written_as_iso_8601() {
        assert_eq!(iso_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_time(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso_time(1_724_972_275), "2024-08-29T22:57:55.000Z");
        assert_eq!(iso_time(1_767_225_599), "2025-12-31T23:59:59.000Z");
    }
}
