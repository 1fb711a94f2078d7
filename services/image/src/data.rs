//! Where the content of images goes: a trait, so that handlers can be tested without a storage process.

use async_trait::async_trait;
use axum::body::Body;
use cairn_gateway::ApiError;
use cairn_shards::data::{Client, ImageImported, ImportError};
use http::Response;

/// What is known of content once it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Bytes of the content as it came.
    pub size: u64,
    /// Bytes of the disk it describes.
    pub virtual_size: u64,
    /// MD5 of the content, in hexadecimal.
    pub md5: String,
    /// SHA-512 of the content, in hexadecimal.
    pub sha512: String,
}

/// Why content was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The content is bad (corrupt, has a backing file, describes too large a disk); nothing was kept.
    #[error("{0}")]
    Refused(String),
    /// There is no room for it; nothing was kept.
    #[error("{0}")]
    Full(String),
    /// Whether something was kept is not known.
    #[error("{0}")]
    Broken(String),
    /// There is no such content.
    #[error("{0}")]
    Missing(String),
    /// The range asked for lies beyond its end.
    #[error("{0}")]
    Range(String),
}

impl From<DataError> for ApiError {
    fn from(e: DataError) -> ApiError {
        match e {
            DataError::Refused(why) => ApiError::bad_request(why),
            DataError::Full(why) => ApiError::too_large(why),
            DataError::Missing(why) => ApiError::new(http::StatusCode::NOT_FOUND, why),
            DataError::Range(why) => ApiError::new(http::StatusCode::RANGE_NOT_SATISFIABLE, why),
            DataError::Broken(why) => {
                tracing::warn!(error = why, "the storage process did not answer");
                ApiError::unavailable("The storage of this node does not answer; try again.")
            }
        }
    }
}

/// The storage of images' content.
#[async_trait]
pub trait ImageData: Send + Sync + 'static {
    /// Stores a stream as the content of an image. `format` is `raw`, `qcow2` or `iso`; a disk larger than
    /// `cap` bytes is refused.
    async fn import(&self, id: &str, format: &str, cap: u64, body: Body) -> Result<Stored, DataError>;

    /// Stores the present content of a volume as the content of an image.
    async fn capture(&self, id: &str, volume: &str) -> Result<Stored, DataError>;

    /// The content, or the part of it that an HTTP `Range` header's value names.
    async fn read(&self, id: &str, range: Option<&str>) -> Result<Response<Body>, DataError>;
}

impl From<ImportError> for DataError {
    fn from(e: ImportError) -> DataError {
        match e {
            ImportError::Refused(why) => DataError::Refused(why),
            ImportError::Full(why) => DataError::Full(why),
            ImportError::Missing(why) => DataError::Missing(why),
            ImportError::Range(why) => DataError::Range(why),
            ImportError::Broken(why) => DataError::Broken(why),
        }
    }
}

impl From<ImageImported> for Stored {
    fn from(i: ImageImported) -> Stored {
        Stored { size: i.size, virtual_size: i.virtual_size, md5: i.md5, sha512: i.sha512 }
    }
}

/// The storage process of a node, through its data socket.
#[async_trait]
impl ImageData for Client {
    async fn import(&self, id: &str, format: &str, cap: u64, body: Body) -> Result<Stored, DataError> {
        Ok(Client::import(self, id, format, cap, body).await?.into())
    }

    async fn capture(&self, id: &str, volume: &str) -> Result<Stored, DataError> {
        Ok(self.import_volume(id, volume).await?.into())
    }

    async fn read(&self, id: &str, range: Option<&str>) -> Result<Response<Body>, DataError> {
        Ok(Client::read(self, id, range).await?)
    }
}
