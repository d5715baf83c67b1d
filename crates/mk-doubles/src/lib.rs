//! Doubles of the paid services that a voice loop talks to: Deepgram's and OpenAI's.
