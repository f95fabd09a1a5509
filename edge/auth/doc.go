// Package auth decides who a client is: it verifies the JWT of a connect or a
// refresh and hands back its claims; Sign mints one.
//
// The rules are stricter than the RFCs ask for, because a token is the only thing
// between a stranger and a user's presence:
//
//   - A key accepts exactly one algorithm (HS256, RS256, ES256 or EdDSA), so a token
//     cannot choose how it is checked; "none" does not exist here.
//   - Keys come from the configuration alone. Headers that carry or point to keys
//     (jwk, jku, x5c, x5u) are ignored, and a critical extension (crit) refuses.
//   - A claim given twice, of the wrong type or null refuses: two readers of one
//     token must not see two users.
//   - A token that names an audience is refused by a server that has none.
//
// The algorithms are golang-jwt's, JWK sets are read by keyfunc. The segments are
// split and decoded here, which makes every refusal precise and the HS256 path,
// taken by each connect, three times as fast as decoding into maps.
package auth
