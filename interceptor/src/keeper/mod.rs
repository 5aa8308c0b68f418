//! The keeper role: secrets, the CA key, and the writing of evidence. Talks to the proxy only.
