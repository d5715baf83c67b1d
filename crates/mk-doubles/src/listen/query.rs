//! The query of a listening connection, read as strictly as the services do.

use serde_json::Value;

use crate::listen::audio::Encoding;

/// What a query of either protocol says about the audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AudioQuery {
    pub(crate) encoding: Encoding,
    pub(crate) sample_rate: u32,
    pub(crate) channels: u32,
}

/// The settings of `/v1/listen`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NovaQuery {
    pub(crate) channels: u32,
    pub(crate) interim_results: bool,
    /// Milliseconds of silence before results are final; `None` for `false`.
    pub(crate) endpointing: Option<u32>,
    pub(crate) utterance_end_ms: Option<u32>,
    pub(crate) vad_events: bool,
    /// Whether transcripts have capitals and punctuation.
    pub(crate) is_written: bool,
}

/// The settings of `/v2/listen`, which `Configure` may change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FluxQuery {
    pub(crate) model: String,
    pub(crate) eot_threshold: f64,
    pub(crate) eager_eot_threshold: Option<f64>,
    pub(crate) eot_timeout_ms: u32,
    pub(crate) keyterms: Vec<String>,
    pub(crate) language_hints: Vec<String>,
}

/// What is wrong with a query, for the error's message.
pub(crate) type Refusal = String;

/// Names and values, decoded.
#[derive(Debug)]
pub(crate) struct Query<'a>(pub(crate) &'a [(String, String)]);

impl<'a> Query<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.get(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("{name} must be true or false, not {other:?}")),
        }
    }

    fn number<T>(&self, name: &str, from: T, to: T) -> Result<Option<T>, Refusal>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<T>() {
            Ok(number) if number >= from && number <= to => Ok(Some(number)),
            _ => Err(format!("{name} must be a number from {from} to {to}, not {text:?}")),
        }
    }

    fn audio(&self, channels: u32) -> Result<AudioQuery, Refusal> {
        let Some(encoding) = self.get("encoding") else {
            return Err("encoding is missing: this service takes raw audio only".into());
        };
        let encoding = Encoding::parse(encoding)
            .ok_or_else(|| format!("encoding {encoding:?} is unknown or not supported here"))?;
        let sample_rate = self
            .number("sample_rate", 8000, 48_000)?
            .ok_or_else(|| "sample_rate is missing".to_owned())?;
        Ok(AudioQuery { encoding, sample_rate, channels })
    }
}

impl NovaQuery {
    /// Reads a query of `/v1/listen`.
    pub(crate) fn read(query: &Query<'_>) -> Result<(Self, AudioQuery), Refusal> {
        if let Some(model) = query.get("model")
            && model.starts_with("flux")
        {
            return Err(format!("the model {model} is served by /v2/listen"));
        }
        let channels = query.number("channels", 1, 16)?.unwrap_or(1);
        let audio = query.audio(channels)?;
        let interim_results = query.flag("interim_results", false)?;
        let endpointing = match query.get("endpointing") {
            None | Some("true") => Some(10),
            Some("false") => None,
            Some(_) => query.number("endpointing", 0, 60_000)?,
        };
        let utterance_end_ms = query.number("utterance_end_ms", 1000, 5000)?;
        if utterance_end_ms.is_some() && !interim_results {
            return Err("utterance_end_ms needs interim_results=true".into());
        }
        let is_written = query.flag("punctuate", false)? || query.flag("smart_format", false)?;
        let vad_events = query.flag("vad_events", false)?;
        let settings = Self {
            channels,
            interim_results,
            endpointing,
            utterance_end_ms,
            vad_events,
            is_written,
        };
        Ok((settings, audio))
    }
}

/// Parameters of `/v1/listen` that Flux does not have.
const NOT_FLUX: [&str; 9] = [
    "interim_results",
    "endpointing",
    "utterance_end_ms",
    "vad_events",
    "channels",
    "language",
    "punctuate",
    "smart_format",
    "no_delay",
];

impl FluxQuery {
    /// Reads a query of `/v2/listen`.
    pub(crate) fn read(query: &Query<'_>) -> Result<(Self, AudioQuery), Refusal> {
        let model = query.get("model").ok_or_else(|| "model is missing".to_owned())?;
        if !["flux-general-en", "flux-general-multi"].contains(&model) {
            return Err(format!("the model {model:?} is not served by /v2/listen"));
        }
        if let Some(name) = NOT_FLUX.iter().find(|name| query.get(name).is_some()) {
            return Err(format!("{name} is no parameter of /v2/listen"));
        }
        let audio = query.audio(1)?;
        let settings = Self {
            model: model.to_owned(),
            eot_threshold: query.number("eot_threshold", 0.5, 1.0)?.unwrap_or(0.7),
            eager_eot_threshold: query.number("eager_eot_threshold", 0.3, 0.9)?,
            eot_timeout_ms: query.number("eot_timeout_ms", 500, 60_000)?.unwrap_or(5000),
            keyterms: query.all("keyterm"),
            language_hints: query.all("language_hint"),
        };
        settings.check()?;
        Ok((settings, audio))
    }

    /// Applies a `Configure` message; where that fails, what is left of `self` is of no use.
    pub(crate) fn configure(&mut self, message: &Value) -> Result<(), Refusal> {
        let thresholds = &message["thresholds"];
        let number = |name: &str, from: f64, to: f64| match &thresholds[name] {
            Value::Null => Ok(None),
            value => match value.as_f64() {
                Some(number) if (from..=to).contains(&number) => Ok(Some(number)),
                _ => Err(format!("{name} must be a number from {from} to {to}, not {value}")),
            },
        };
        self.eot_threshold = number("eot_threshold", 0.5, 1.0)?.unwrap_or(self.eot_threshold);
        if let Some(eager) = number("eager_eot_threshold", 0.3, 0.9)? {
            self.eager_eot_threshold = Some(eager);
        }
        if let Some(timeout) = number("eot_timeout_ms", 500.0, 60_000.0)? {
            self.eot_timeout_ms = timeout as u32;
        }
        for (name, list) in
            [("keyterms", &mut self.keyterms), ("language_hints", &mut self.language_hints)]
        {
            match &message[name] {
                Value::Null => {}
                value => {
                    *list = serde_json::from_value(value.clone())
                        .map_err(|_| format!("{name} must be a list of strings"))?;
                }
            }
        }
        self.check()
    }

    pub(crate) fn is_multilingual(&self) -> bool {
        self.model == "flux-general-multi"
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.eager_eot_threshold {
            Some(eager) if eager > self.eot_threshold => Err(format!(
                "eager_eot_threshold {eager} is above eot_threshold {}",
                self.eot_threshold
            )),
            _ if !self.language_hints.is_empty() && !self.is_multilingual() => {
                Err(format!("{} takes no language_hint", self.model))
            }
            _ => Ok(()),
        }
    }
}
