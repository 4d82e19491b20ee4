//! Portcullis, an MQTT broker for edge gateways. ARCHITECTURE.md is the map; every folder is a room, imports run downwards only.

pub mod appliance;
pub mod authentication;
pub mod authorization;
pub mod bridge;
pub mod broker;
pub mod bundle;
pub mod codec;
pub mod collections;
pub mod commands;
pub mod config;
pub mod crypto;
pub mod distinguished_name;
pub mod http;
pub mod https;
pub mod identity;
pub mod limits;
pub mod net;
pub mod pki;
pub mod platform;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod upstream;
pub mod websocket;
