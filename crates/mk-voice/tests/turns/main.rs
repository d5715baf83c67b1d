//! The turn machine in a world of its own: a virtual clock, a voice and a client that behave, and whatever the test makes
//! of the user, the recogniser and the language model.

mod properties;
mod scenarios;
mod world;
