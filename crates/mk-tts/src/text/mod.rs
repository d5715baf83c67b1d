//! Text on its way to the talker.
