package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/edge/publish"
)

// Error is the body of every answer that is not a success, and of an item of a
// batch that failed. docs/errors.md lists the codes.
type Error struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Code         uint32 `json:"code" doc:"Number of the error, stable" example:"107"`
	Name         string `json:"name" doc:"Name of the error, stable" example:"BAD_REQUEST"`
	Message      string `json:"message" doc:"What is wrong, for a human"`
	Retryable    bool   `json:"retryable" doc:"The same request may succeed later"`
	RetryAfterMs uint64 `json:"retry_after_ms,omitempty" doc:"Wait at least so long"`

	status int
}

func (e *Error) Error() string  { return e.Name + ": " + e.Message }
func (e *Error) GetStatus() int { return e.status }

// GetHeaders tells HTTP clients that know no body when to come again.
func (e *Error) GetHeaders() http.Header {
	h := http.Header{}
	if e.RetryAfterMs > 0 {
		h.Set("Retry-After", strconv.FormatUint((e.RetryAfterMs+999)/1000, 10))
	}
	return h
}

func fail(code wire.Code, retryAfter time.Duration, format string, args ...any) *Error {
	info, _ := code.Info()
	e := code.Error(fmt.Sprintf(format, args...), retryAfter)
	return &Error{
		Code: e.Code, Name: e.Name, Message: e.Message, Retryable: e.Retryable, RetryAfterMs: e.RetryAfterMs,
		status: info.HTTP,
	}
}

func badRequest(format string, args ...any) *Error {
	return fail(wire.CodeBadRequest, 0, format, args...)
}

// httpError is an error that HTTP itself defines; it keeps HTTP's status.
func httpError(status int, message string) *Error {
	code := wire.CodeBadRequest
	switch {
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		code = wire.CodeMethodNotFound
	case status == http.StatusRequestEntityTooLarge:
		code = wire.CodeTooLarge
	case status >= 500:
		code = wire.CodeInternal
	}
	e := fail(code, 0, "%s", message)
	if status != http.StatusUnprocessableEntity { // huma's for a body that does not fit the schema
		e.status = status
	}
	return e
}

// newHumaError makes huma speak our errors. Details name the field; the value that
// was sent is not echoed.
func newHumaError(status int, message string, errs ...error) huma.StatusError {
	var details []string
	for _, err := range errs {
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			detail := d.ErrorDetail()
			details = append(details, detail.Location+": "+detail.Message)
		} else if err != nil {
			details = append(details, err.Error())
		}
	}
	if status >= 500 {
		return httpError(status, "the server failed")
	}
	if len(details) > 0 {
		message = strings.Join(details[:min(len(details), 5)], "; ")
	}
	return httpError(status, message)
}

// coreError is the refusal of a shard.
func coreError(code link.Code, message string) error {
	if code == link.Code_OK {
		return nil
	}
	wait := time.Duration(0)
	switch code {
	case link.Code_BUSY, link.Code_MOVING, link.Code_UNKNOWN_OUTCOME:
		wait = 200 * time.Millisecond
	case link.Code_OUTBOX_FULL, link.Code_UNAVAILABLE:
		wait = time.Second
	}
	return fail(publish.Refusal(code), wait, "%s", message)
}

// callError is a shard that did not answer. A command may have reached it all the same.
func callError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return fail(wire.CodeNotReady, time.Second, "the shard did not answer; a change may or may not have been made")
}

// unconfirmed is a linearizable read that the shard did not answer.
func unconfirmed() *Error {
	return fail(wire.CodeNotReady, 200*time.Millisecond, "the shard could not confirm in time that this is the newest")
}

// wrongAnswer is an answer of a kind that the request does not have.
func wrongAnswer() *Error {
	return fail(wire.CodeInternal, 0, "the shard answered something else than was asked")
}

func writeError(w http.ResponseWriter, e *Error) {
	for name, values := range e.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(e)
}
