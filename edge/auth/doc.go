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
//     token must not see two users. So does any name given twice in the header.
//   - A token that names an audience is refused by a server that has none.
//
// golang-jwt takes tokens apart and checks signature, dates, issuer and audience;
// keyfunc fetches and keeps JWK sets. What is left here is what they do not do: the
// strict reading of claims, one algorithm per key, and a reason for each refusal.
package auth
