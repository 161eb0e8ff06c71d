//! gRPC's statuses as HTTP's: one mapping for all who have to compare them.

/// The HTTP status that a `grpc-status` stands for (Envoy's `Grpc::Utility::grpcToHttpStatus`); an unknown code is 500.
pub const fn http_status(code: u32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
