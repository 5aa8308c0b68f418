//! The daemon's own settings and the reading of the policy folder from disk: raw text to checked values, once.
