//! What is asked of Deepgram, and the address that says so.

use std::time::Duration;

use url::Url;

use super::Kind;
use crate::secret::Secret;
use crate::stt::SAMPLE_RATE;

/// What is asked of Deepgram.
#[derive(Debug, Clone, PartialEq)]
pub struct DeepgramOptions {
    /// The server: `http`, `https`, `ws` or `wss`. The path of the API is put behind its path.
    pub url: String,
    /// Sent as `Authorization: Token …`; an empty one is not sent.
    pub key: Secret,
    /// The model. `None` is `flux-general-en` or `flux-general-multi`, by the language; `nova-3` with Nova.
    pub model: Option<String>,
    /// The language, as "en" or "pt-BR". For Flux of many languages it is a hint; for Nova it may be "multi".
    pub language: String,
    /// Words that are to be expected: names, products.
    pub keyterms: Vec<String>,
    /// Flux: how sure it must be that a turn is over, from 0.5 to 1.
    pub eot_threshold: f64,
    /// Flux: how sure it must be to say that a turn is likely to be over, from 0.3 to 0.9, at most `eot_threshold`.
    /// With `None` it never does. Turns are answered sooner, and about half as many requests more go to the language
    /// model.
    pub eager_eot_threshold: Option<f64>,
    /// Flux: milliseconds of silence that end a turn in any case, from 500 to 60,000.
    pub eot_timeout_ms: u32,
    /// Nova: milliseconds of silence that end a turn; with `None` the local detector alone does.
    pub endpointing_ms: Option<u32>,
    /// Nova: milliseconds without words that end a turn which silence did not, at least 1,000.
    pub utterance_end_ms: u32,
    /// Further parameters of the address, as `("mip_opt_out", "true")`.
    pub extra: Vec<(String, String)>,
    /// How much audio is kept to be sent again after a connection was lost, at most ten minutes.
    pub kept: Duration,
    /// How long a connection may take to be there; and how long Flux may then take to say so.
    pub connect_timeout: Duration,
}

impl Default for DeepgramOptions {
    fn default() -> Self {
        Self {
            url: "https://api.deepgram.com".into(),
            key: Secret::default(),
            model: None,
            language: "en".into(),
            keyterms: Vec::new(),
            eot_threshold: 0.7,
            eager_eot_threshold: None,
            eot_timeout_ms: 5000,
            endpointing_ms: Some(300),
            utterance_end_ms: 1000,
            extra: Vec::new(),
            kept: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// What is wrong with [`DeepgramOptions`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeepgramOptionsError {
    /// The address is none.
    #[error("the address of Deepgram, {url:?}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key has characters that cannot be sent.
    #[error("the key of Deepgram has characters that no key has (it has {length})")]
    Key {
        /// How many characters there are.
        length: usize,
    },
    /// A value is outside of its range.
    #[error("{name} of Deepgram is {value}, not from {least} to {most}")]
    Range {
        /// The field.
        name: &'static str,
        /// What was given.
        value: f64,
        /// The least it may be.
        least: f64,
        /// The most it may be.
        most: f64,
    },
}

impl DeepgramOptions {
    /// The model that is used.
    pub(super) fn model(&self, kind: Kind) -> &str {
        match (&self.model, kind) {
            (Some(model), _) => model,
            (None, Kind::Nova) => "nova-3",
            (None, Kind::Flux) if self.language == "en" || self.language.starts_with("en-") => {
                "flux-general-en"
            }
            (None, Kind::Flux) => "flux-general-multi",
        }
    }

    /// Everything that can be found wrong before a connection is tried.
    pub(super) fn check(&self, kind: Kind) -> Result<(), DeepgramOptionsError> {
        let range = |name, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(DeepgramOptionsError::Range { name, value, least, most })
            }
        };
        match kind {
            Kind::Flux => {
                range("eot_threshold", self.eot_threshold, 0.5, 1.0)?;
                if let Some(eager) = self.eager_eot_threshold {
                    range("eager_eot_threshold", eager, 0.3, self.eot_threshold.min(0.9))?;
                }
                range("eot_timeout_ms", self.eot_timeout_ms.into(), 500.0, 60_000.0)?;
            }
            Kind::Nova => {
                range("utterance_end_ms", self.utterance_end_ms.into(), 1000.0, 60_000.0)?;
            }
        }
        range("kept (in seconds)", self.kept.as_secs_f64(), 1.0, 600.0)?;
        if !self.key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(DeepgramOptionsError::Key { length: self.key.expose().chars().count() });
        }
        self.address(kind).map(drop)
    }

    /// Where to connect to: scheme `ws` or `wss`, and all parameters.
    pub(super) fn address(&self, kind: Kind) -> Result<Url, DeepgramOptionsError> {
        let wrong = |reason: &str| DeepgramOptionsError::Url {
            url: self.key.redact(&self.url),
            reason: reason.to_owned(),
        };
        let mut url = Url::parse(&self.url).map_err(|e| wrong(&e.to_string()))?;
        let scheme = match url.scheme() {
            "http" | "ws" => "ws",
            "https" | "wss" => "wss",
            _ => return Err(wrong("neither http, https, ws nor wss")),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("there is no host in it"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("the key belongs into `key`, not into the address"));
        }
        url.set_scheme(scheme).map_err(|()| wrong("its scheme cannot be changed"))?;
        url.set_fragment(None);
        let path = match kind {
            Kind::Flux => "v2/listen",
            Kind::Nova => "v1/listen",
        };
        let path = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        self.parameters(kind, &mut url);
        Ok(url)
    }

    fn parameters(&self, kind: Kind, url: &mut Url) {
        let model = self.model(kind);
        let mut query = url.query_pairs_mut();
        query
            .append_pair("model", model)
            .append_pair("encoding", "linear16")
            .append_pair("sample_rate", &SAMPLE_RATE.to_string());
        match kind {
            Kind::Flux => {
                query.append_pair("eot_threshold", &self.eot_threshold.to_string());
                if let Some(eager) = self.eager_eot_threshold {
                    query.append_pair("eager_eot_threshold", &eager.to_string());
                }
                query.append_pair("eot_timeout_ms", &self.eot_timeout_ms.to_string());
                if model.contains("multi") && self.language != "multi" {
                    query.append_pair("language_hint", &self.language);
                }
            }
            Kind::Nova => {
                let endpointing = self.endpointing_ms.map_or("false".into(), |ms| ms.to_string());
                query
                    .append_pair("language", &self.language)
                    .append_pair("channels", "1")
                    .append_pair("interim_results", "true")
                    .append_pair("punctuate", "true")
                    .append_pair("smart_format", "false")
                    .append_pair("endpointing", &endpointing)
                    .append_pair("utterance_end_ms", &self.utterance_end_ms.to_string())
                    .append_pair("vad_events", "true");
            }
        }
        for keyterm in &self.keyterms {
            query.append_pair("keyterm", keyterm);
        }
        for (name, value) in &self.extra {
            query.append_pair(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> DeepgramOptions {
        DeepgramOptions { url: url.into(), ..Default::default() }
    }

    #[test]
    fn addresses_say_what_is_asked() {
        let options = DeepgramOptions {
            keyterms: vec!["Żubr & Co".into(), "mk".into()],
            eager_eot_threshold: Some(0.5),
            extra: vec![("mip_opt_out".into(), "true".into())],
            ..at("http://127.0.0.1:8080/proxy/")
        };
        assert_eq!(
            options.address(Kind::Flux).unwrap().as_str(),
            "ws://127.0.0.1:8080/proxy/v2/listen?model=flux-general-en&encoding=linear16\
             &sample_rate=16000&eot_threshold=0.7&eager_eot_threshold=0.5&eot_timeout_ms=5000\
             &keyterm=%C5%BBubr+%26+Co&keyterm=mk&mip_opt_out=true"
        );
        assert_eq!(
            DeepgramOptions::default().address(Kind::Nova).unwrap().as_str(),
            "wss://api.deepgram.com/v1/listen?model=nova-3&encoding=linear16&sample_rate=16000\
             &language=en&channels=1&interim_results=true&punctuate=true&smart_format=false\
             &endpointing=300&utterance_end_ms=1000&vad_events=true"
        );
    }

    #[test]
    fn another_language_is_a_hint_to_flux() {
        let options = DeepgramOptions { language: "pl".into(), ..Default::default() };
        let url = options.address(Kind::Flux).unwrap();
        let pairs: Vec<_> = url.query_pairs().collect();
        assert!(pairs.contains(&("model".into(), "flux-general-multi".into())), "{url}");
        assert!(pairs.contains(&("language_hint".into(), "pl".into())), "{url}");
    }

    #[test]
    fn what_cannot_work_is_said_and_the_key_is_not() {
        let message = |options: DeepgramOptions| options.check(Kind::Flux).unwrap_err().to_string();
        assert!(message(at("api.deepgram.com")).contains("api.deepgram.com"));
        assert!(message(at("ftp://x")).contains("neither"));
        assert!(message(at("https://key@x")).contains("belongs into `key`"));
        let key = Secret::new("abc\ndef");
        let said = message(DeepgramOptions { key, ..Default::default() });
        assert!(said.contains("7") && !said.contains("abc"), "{said}");
        let said =
            message(DeepgramOptions { eager_eot_threshold: Some(0.8), ..Default::default() });
        assert_eq!(said, "eager_eot_threshold of Deepgram is 0.8, not from 0.3 to 0.7");
        let said = message(DeepgramOptions { eot_threshold: f64::NAN, ..Default::default() });
        assert!(said.contains("NaN"), "{said}");
    }
}
