//! Query parameters of the API. What cannot be understood is refused with its name and value, never ignored.

use super::refuse;
use fanlight_livekit::http_rules::{Answer, HttpRequest, Parameters};
use fanlight_telemetry::turn_account::table::from_utc;
use fanlight_telemetry::turn_account::usage::{By, Price};
use fanlight_telemetry::turn_query::{Filter, Slice, Sort};

/// Rows of one answer in JSON.
const ROWS_MAX: u64 = 1_000;
/// Rows of one answer unless asked otherwise.
const ROWS: u64 = 100;
/// Rows of one answer in CSV, which is for taking away.
const CSV_ROWS_MAX: u64 = 100_000;
/// Longer names are nobody's.
const NAME_BYTES_MAX: usize = 1_024;
/// LiveKit's parameter for the token.
const ACCESS_TOKEN: &str = "access_token";

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

/// The parameters of one request.
pub(super) struct Asked {
    parameters: Parameters,
}

impl Asked {
    /// Takes the query; every parameter has to be one of `known`.
    pub(super) fn read(http: &HttpRequest<'_>, known: &[&str]) -> Result<Self, Answer> {
        let parameters = http.parameters();
        let unknown = parameters.names().find(|name| !known.contains(name) && *name != ACCESS_TOKEN);
        if let Some(name) = unknown {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(invalid(&format!("no parameter {name:?} here; there are: {known}")));
        }
        Ok(Self { parameters })
    }

    pub(super) fn format(&self) -> Result<Format, Answer> {
        match self.parameters.get("format") {
            "" | "json" => Ok(Format::Json),
            "csv" => Ok(Format::Csv),
            other => Err(wrong("format", other, "json or csv")),
        }
    }

    pub(super) fn filter(&self) -> Result<Filter, Answer> {
        let filter = Filter {
            from_ms: self.time("from")?,
            to_ms: self.time("to")?,
            user: self.name("user")?,
            room: self.name("room")?,
            realm: self.name("realm")?,
            session: self.number("session", u64::MAX)?,
        };
        match (filter.from_ms, filter.to_ms) {
            (Some(from_ms), Some(to_ms)) if from_ms >= to_ms => {
                Err(wrong("to", self.parameters.get("to"), "a time after from"))
            }
            _ => Ok(filter),
        }
    }

    pub(super) fn slice(&self, format: Format) -> Result<Slice, Answer> {
        let (usual, most) = match format {
            Format::Json => (ROWS, ROWS_MAX),
            Format::Csv => (CSV_ROWS_MAX, CSV_ROWS_MAX),
        };
        let limit = self.number("limit", most)?.unwrap_or(usual);
        if limit == 0 {
            return Err(wrong("limit", "0", &format!("a number from 1 to {most}")));
        }
        let sort = self.parameters.get("sort");
        let names = Sort::ALL.map(|(name, _)| name);
        let known = Sort::ALL.into_iter().find(|(name, _)| *name == sort);
        let sort = match known {
            Some((_, sort)) => sort,
            None if sort.is_empty() => Sort::Started,
            None => return Err(wrong("sort", sort, &format!("one of {}", names.join(", ")))),
        };
        let descending = match self.parameters.get("order") {
            "" | "desc" => true,
            "asc" => false,
            other => return Err(wrong("order", other, "asc or desc")),
        };
        // SQLite counts with 63 bits.
        let offset = self.number("offset", i64::MAX.unsigned_abs())?.unwrap_or(0);
        Ok(Slice { sort, descending, offset, limit })
    }

    pub(super) fn by(&self) -> Result<By, Answer> {
        match self.parameters.get("by") {
            "" => Ok(By::User),
            by => By::parse(by).ok_or_else(|| wrong("by", by, "user, room or day")),
        }
    }

    pub(super) fn price(&self) -> Result<Price, Answer> {
        Ok(Price { per_gb: self.amount("price_per_gb")?, per_minute: self.amount("price_per_minute")? })
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<u64>, Answer> {
        self.parse(name, "a day (2026-11-21) or a time (2026-11-21T14:00:00Z)", from_utc)
    }

    pub(super) fn name(&self, name: &str) -> Result<Option<String>, Answer> {
        let wanted = format!("at most {NAME_BYTES_MAX} bytes long");
        self.parse(name, &wanted, |text| (text.len() <= NAME_BYTES_MAX).then(|| text.to_owned()))
    }

    pub(super) fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Answer> {
        let number = |text: &str| text.parse().ok().filter(|number| *number <= most);
        self.parse(name, &format!("a number up to {most}"), number)
    }

    fn amount(&self, name: &str) -> Result<f64, Answer> {
        let amount =
            |text: &str| text.parse().ok().filter(|amount: &f64| amount.is_finite() && *amount >= 0.0);
        Ok(self.parse(name, "an amount such as 0.05", amount)?.unwrap_or(0.0))
    }

    fn parse<T>(
        &self,
        name: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Answer> {
        match self.parameters.get(name) {
            "" => Ok(None),
            text => parse(text).map(Some).ok_or_else(|| wrong(name, text, wanted)),
        }
    }
}

pub(super) fn wrong(name: &str, value: &str, wanted: &str) -> Answer {
    let value: String = value.chars().take(80).collect();
    invalid(&format!("{name}={value:?} is not {wanted}"))
}

fn invalid(text: &str) -> Answer {
    refuse(400, "invalid_argument", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, Answer> {
        let http = HttpRequest { method: "GET", path: "/", query, headers: &[], body: b"", remote: None };
        let known = [
            "from",
            "to",
            "user",
            "room",
            "limit",
            "offset",
            "sort",
            "order",
            "by",
            "format",
            "price_per_gb",
        ];
        Asked::read(&http, &known)
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        let refusal = |query: &str| {
            let asked = asked(query)?;
            let format = asked.format()?;
            asked.filter()?;
            asked.slice(format)?;
            asked.by()?;
            asked.price().map(|_| ())
        };
        for (query, words) in [
            ("from=yesterday", ["from", "yesterday"]),
            ("from=2026-11-22&to=2026-11-21", ["to", "2026-11-21"]),
            ("limit=0", ["limit", "from 1 to 1000"]),
            ("limit=1001", ["limit", "1001"]),
            ("limit=-1", ["limit", "-1"]),
            ("offset=18446744073709551615", ["offset", "18446744073709551615"]),
            ("format=xml", ["format", "xml"]),
            ("sort=size", ["sort", "size"]),
            ("order=up", ["order", "up"]),
            ("by=week", ["by", "week"]),
            ("price_per_gb=-1", ["price_per_gb", "-1"]),
            ("price_per_gb=NaN", ["price_per_gb", "NaN"]),
            ("usr=alice", ["usr", "user"]),
        ] {
            let answer = refusal(query).unwrap_err();
            assert_eq!(answer.status, 400, "{query}");
            assert!(words.iter().all(|word| answer.body.contains(word)), "{query}: {}", answer.body);
        }
        assert!(
            refusal("from=2026-11-21&to=2026-11-22T12:00:00Z&user=a%20b&limit=1000&access_token=x").is_ok()
        );
        assert!(refusal("format=csv&limit=100000").is_ok());
    }

    #[test]
    fn without_parameters_the_newest_hundred_are_told() {
        let asked = asked("").unwrap();
        let slice = asked.slice(Format::Json).unwrap();
        assert_eq!((slice.limit, slice.offset, slice.descending), (100, 0, true));
        assert_eq!(asked.filter().unwrap(), Filter::default());
        assert_eq!(asked.by().unwrap(), By::User);
    }
}
