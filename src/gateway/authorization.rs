//! How a server takes its token.

use std::str::FromStr;

use crate::Error;

/// Where the token travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authorization {
    /// In the header `Authorization: token …`: kernel gateways and Jupyter servers.
    #[default]
    Token,
    /// In the header `Authorization: Bearer …`: fronts that know no other scheme.
    Bearer,
    /// In the query, as `?token=…`: servers that take it nowhere else. Proxies and servers log it there.
    Query,
}

impl FromStr for Authorization {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "token" => Ok(Self::Token),
            "bearer" => Ok(Self::Bearer),
            "query" => Ok(Self::Query),
            _ => Err(Error::Configuration(
                "authorization has to be \"token\", \"bearer\" or \"query\"".to_owned(),
            )),
        }
    }
}
