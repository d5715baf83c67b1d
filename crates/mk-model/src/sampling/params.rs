//! The parameters, what they may be, and where a checkpoint suggests them.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::generation_config::GenerationConfig;

/// How a token is chosen; the names are transformers'. The default is greedy, with everything else off.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits. 0 is greedy: the likeliest id, and the four filters and the seed do not matter.
    pub temperature: f32,
    /// Keeps the ids whose logit is among the `top_k` largest, with all that tie with the last; 0 is off.
    pub top_k: usize,
    /// Keeps the smallest set of likeliest ids with at least this probability, never none; 1 is off.
    pub top_p: f32,
    /// Keeps ids at least this fraction as likely as the likeliest; 0 is off.
    pub min_p: f32,
    /// Divides positive logits of ids seen before and multiplies the others; above 1 discourages them, 1 is off.
    pub repetition_penalty: f32,
    /// Ids that are never chosen.
    pub suppress: Vec<u32>,
    /// Key of the random numbers.
    pub seed: u64,
}

/// More rows than any vocabulary: the bound under which a sum of weights fits 64 bits.
const MAX_VOCABULARY: usize = 1 << 24;

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            suppress: Vec::new(),
            seed: 0,
        }
    }
}

impl From<&GenerationConfig> for Sampling {
    /// What the checkpoint's makers suggest. Without `do_sample` this is greedy, with their repetition penalty.
    ///
    /// Fields that the file leaves out get transformers' defaults, of which one is not "off": `top_k` is 50
    /// (`GenerationConfig._get_default_generation_params`).
    fn from(config: &GenerationConfig) -> Self {
        let greedy = Self {
            repetition_penalty: config.repetition_penalty.unwrap_or(1.0),
            ..Self::default()
        };
        if !config.do_sample {
            return greedy;
        }
        Self {
            temperature: config.temperature.unwrap_or(1.0),
            top_k: config.top_k.unwrap_or(50),
            top_p: config.top_p.unwrap_or(1.0),
            min_p: config.min_p.unwrap_or(0.0),
            ..greedy
        }
    }
}

impl Sampling {
    /// Checks every parameter against its range and the suppressed ids against the vocabulary.
    ///
    /// # Errors
    /// [`Error::Sampling`] for the first parameter that is out of range or not a finite number.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        if vocab_size > MAX_VOCABULARY {
            return Err(refuse("vocab_size", vocab_size, "at most 2^24"));
        }
        let positive = |x: f32| x > 0.0 && x.is_finite();
        if self.temperature != 0.0 && !positive(self.temperature) {
            return Err(refuse("temperature", self.temperature, "expected 0 or a positive number"));
        }
        if !positive(self.repetition_penalty) {
            let value = self.repetition_penalty;
            return Err(refuse("repetition_penalty", value, "expected a positive number"));
        }
        let unit: RangeInclusive<f32> = 0.0..=1.0;
        for (name, value) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if !unit.contains(&value) {
                return Err(refuse(name, value, "expected a number from 0 to 1"));
            }
        }
        match self.suppress.iter().find(|id| **id as usize >= vocab_size) {
            Some(id) => Err(refuse("suppress", id, "expected ids of the vocabulary")),
            None => Ok(()),
        }
    }

    /// Whether the likeliest id is taken without a draw.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

pub(super) fn refuse(
    name: &'static str,
    value: impl std::fmt::Display,
    expected: &'static str,
) -> Error {
    Error::Sampling { name, value: value.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sampling: Sampling) -> &'static str {
        match sampling.validate(100) {
            Err(Error::Sampling { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_parameter_has_its_range() {
        assert!(Sampling::default().validate(100).is_ok());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
            let d = Sampling::default;
            assert_eq!(refused(Sampling { temperature: bad, ..d() }), "temperature");
            assert_eq!(refused(Sampling { top_p: bad, ..d() }), "top_p");
            assert_eq!(refused(Sampling { min_p: bad, ..d() }), "min_p");
            assert_eq!(refused(Sampling { repetition_penalty: bad, ..d() }), "repetition_penalty");
        }
        let zero = Sampling { repetition_penalty: 0.0, ..Sampling::default() };
        assert_eq!(refused(zero), "repetition_penalty");
        assert_eq!(refused(Sampling { top_p: 1.01, ..Sampling::default() }), "top_p");
        assert_eq!(refused(Sampling { suppress: vec![5, 100], ..Sampling::default() }), "suppress");
        assert!(Sampling::default().validate(MAX_VOCABULARY + 1).is_err());
    }

    #[test]
    fn the_message_names_parameter_value_and_range() {
        let error = Sampling { top_p: 1.5, ..Sampling::default() }.validate(1).unwrap_err();
        assert_eq!(error.to_string(), "sampling: top_p = 1.5: expected a number from 0 to 1");
    }

    #[test]
    fn a_generation_config_without_do_sample_is_greedy() {
        let config = GenerationConfig {
            temperature: Some(0.6),
            repetition_penalty: Some(1.05),
            ..GenerationConfig::default()
        };
        let greedy = Sampling { repetition_penalty: 1.05, ..Sampling::default() };
        assert_eq!(Sampling::from(&config), greedy);

        let sampled = Sampling::from(&GenerationConfig { do_sample: true, ..config });
        assert_eq!((sampled.temperature, sampled.top_k, sampled.top_p), (0.6, 50, 1.0));
        assert_eq!(sampled.repetition_penalty, 1.05);
    }
}
