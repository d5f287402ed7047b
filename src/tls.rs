//! One TLS configuration for the REST client and the websocket.
