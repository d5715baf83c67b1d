//! `strftime_now`, which Hugging Face gives to chat templates: the date in a system prompt.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The present time in UTC, by a format of C's `strftime` (its fields for dates and times, `%-d` and the like too).
///
/// # Errors
/// A field that is not known.
pub(super) fn strftime_now(format: &str) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(format, now)
}

/// `seconds` are since 1970.
fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let day_of_year = days - days_before(year) + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let day_name = DAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut field = chars.next();
        let padded = field != Some('-');
        if !padded {
            field = chars.next();
        }
        let (number, width) = match field {
            Some('Y') => (year, 4),
            Some('y') => (year % 100, 2),
            Some('m') => (month, 2),
            Some('d') => (day, 2),
            Some('j') => (day_of_year, 3),
            Some('H') => (hour, 2),
            Some('I') => ((hour + 11) % 12 + 1, 2),
            Some('M') => (minute, 2),
            Some('S') => (second, 2),
            text => {
                match text {
                    Some('A') => out.push_str(day_name),
                    Some('a') => out.push_str(&day_name[..3]),
                    Some('B') => out.push_str(month_name),
                    Some('b') => out.push_str(&month_name[..3]),
                    Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
                    Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
                    Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
                    Some('Z') => out.push_str("UTC"),
                    Some('%') => out.push('%'),
                    Some(other) => return Err(format!("strftime_now: %{other} is not known")),
                    None => return Err("strftime_now: % at the end".into()),
                }
                continue;
            }
        };
        let width = if padded { width } else { 0 };
        out.push_str(&format!("{number:0width$}"));
    }
    Ok(out)
}

/// Year, month and day, the latter two from 1, of a day counted from 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days >= days_before(year + 1) {
        year += 1;
    }
    let mut day = days - days_before(year);
    let mut month = 1;
    while day >= month_length(year, month) {
        day -= month_length(year, month);
        month += 1;
    }
    (year, month, day + 1)
}

/// Days from the beginning of 1970 to that of `year`.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + days_before(year + 1) - days_before(year) - 365,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let all = "%Y-%m-%d %-d %j %H:%M:%S %-I %p %a %A %b %B %y %F %T %%";
        let cases = [
            (
                0,
                "1970-01-01 1 001 00:00:00 12 AM Thu Thursday Jan January 70 1970-01-01 00:00:00 %",
            ),
            (
                951_782_399,
                "2000-02-28 28 059 23:59:59 11 PM Mon Monday Feb February 00 2000-02-28 23:59:59 %",
            ),
            (
                951_827_696,
                "2000-02-29 29 060 12:34:56 12 PM Tue Tuesday Feb February 00 2000-02-29 12:34:56 %",
            ),
            (
                1_735_689_599,
                "2024-12-31 31 366 23:59:59 11 PM Tue Tuesday Dec December 24 2024-12-31 23:59:59 %",
            ),
            (
                4_107_542_400,
                "2100-03-01 1 060 00:00:00 12 AM Mon Monday Mar March 00 2100-03-01 00:00:00 %",
            ),
        ];
        for (seconds, expected) in cases {
            assert_eq!(strftime(all, seconds).as_deref(), Ok(expected));
        }
        assert!(strftime("%Q", 0).is_err());
        assert!(strftime("100%", 0).is_err());
    }
}
