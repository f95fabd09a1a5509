// Package js holds the JavaScript client, so that a server can hand it out: there
// is one copy of it, muster.js beside this file.
package js

import _ "embed"

// Source is the text of muster.js, an ES module without dependencies.
//
//go:embed muster.js
var Source []byte
