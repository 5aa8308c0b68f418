//! Text for people: one renderer that neutralises what could deceive a reader.
