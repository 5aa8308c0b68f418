//! What an operator can ask of a running daemon: one typed request and answer, over a Unix socket.
