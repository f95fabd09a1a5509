// Package stream carries messages between nodes.
package stream

import _ "google.golang.org/grpc"
