//! Time as the API shows and takes it.

use cairn_gateway::ApiError;
use jiff::Timestamp;

/// Microseconds since the epoch.
pub fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// Seconds since the epoch.
pub fn now_s() -> i64 {
    Timestamp::now().as_second()
}

/// As `2026-11-21T13:45:00.000001Z`.
pub fn show_us(us: i64) -> String {
    let at = Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// As [`show_us`], for whole seconds.
pub fn show_s(s: i64) -> String {
    show_us(s.saturating_mul(1_000_000))
}

/// Reads an RFC 3339 time, UTC if it names no zone; microseconds since the epoch. 400 if it is none.
pub fn parse_us(text: &str) -> Result<i64, ApiError> {
    let bad = || ApiError::bad_request(format!("'{text}' is not a time as 2026-11-21T13:45:00.000000Z."));
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_microsecond());
    }
    let civil: jiff::civil::DateTime = text.trim_end_matches('Z').parse().map_err(|_| bad())?;
    Ok(civil.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad())?.timestamp().as_microsecond())
}

/// The end that a request asks for, in microseconds since the epoch; 400 if it is no time, or past.
pub fn parse_end_us(text: Option<String>) -> Result<Option<i64>, ApiError> {
    let end = text.map(|t| parse_us(&t)).transpose()?;
    match end.is_some_and(|e| e <= now_us()) {
        true => Err(ApiError::bad_request("'expires_at' is in the past.")),
        false => Ok(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_microseconds_and_read_back() {
        assert_eq!(show_us(1_700_000_000_000_001), "2023-11-14T22:13:20.000001Z");
        assert_eq!(parse_us(&show_us(1_700_000_000_000_001)).unwrap(), 1_700_000_000_000_001);
        assert_eq!(parse_us("2023-11-14T22:13:20").unwrap(), 1_700_000_000_000_000);
        assert!(parse_us("bad.123Z").is_err() && parse_end_us(Some("2020-01-01T00:00:00Z".into())).is_err());
    }
}
