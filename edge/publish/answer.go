package publish

import (
	"fmt"

	"muster/actors/link"
	"muster/clients/wire"
)

// Refusal is what a shard's verdict is to a client or a backend; a code that is not known
// is an internal error.
func Refusal(c link.Code) wire.Code {
	if w, ok := refusals[c]; ok {
		return w
	}
	return wire.CodeInternal
}

var refusals = map[link.Code]wire.Code{
	link.Code_BAD_REQUEST:     wire.CodeBadRequest,
	link.Code_LIMIT:           wire.CodeLimitExceeded,
	link.Code_DEVICE_LIMIT:    wire.CodeLimitExceeded,
	link.Code_REVOKED:         wire.CodeUnauthorized,
	link.Code_NOT_FOUND:       wire.CodeUnknownTarget,
	link.Code_DENIED:          wire.CodePermissionDenied,
	link.Code_BUSY:            wire.CodeBusy,
	link.Code_MOVING:          wire.CodeMoving,
	link.Code_UNKNOWN_OUTCOME: wire.CodeMoving,
	link.Code_OUTBOX_FULL:     wire.CodeOutboxFull,
	link.Code_ID_EXPIRED:      wire.CodeIDExpired,
	link.Code_ID_REUSED:       wire.CodeIDReused,
	link.Code_BLOCKED:         wire.CodeBlocked,
	link.Code_STALE_ATTEMPT:   wire.CodeConflict,
	link.Code_NOT_ATTACHED:    wire.CodeConflict,
	link.Code_UNAVAILABLE:     wire.CodeNotReady,
}

// EpochWord is an epoch on the wire: 16 hexadecimal digits; empty for 0, which is none.
func EpochWord(e uint64) string {
	if e == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", e)
}
