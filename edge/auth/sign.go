package auth

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// Sign mints a token of the claims. It refuses claims that Verify would refuse
// whatever the configuration.
func Sign(key Key, c Claims) (string, error) {
	if !key.CanSign() {
		return "", errors.New("auth: the key cannot sign: a secret or a private key is needed")
	}
	body := jwt.MapClaims{"sub": c.User}
	put := func(name string, value any, present bool) {
		if present {
			body[name] = value
		}
	}
	put("app", c.App, c.App != "")
	put("dev", c.Device, c.Device != "")
	put("jti", c.ID, c.ID != "")
	put("iss", c.Issuer, c.Issuer != "")
	put("aud", c.Audience, len(c.Audience) > 0)
	put("iat", c.Issued.Unix(), !c.Issued.IsZero())
	put("nbf", c.From.Unix(), !c.From.IsZero())
	put("exp", c.Expires.Unix(), !c.Expires.IsZero())
	put("caps", c.Caps, c.Caps != nil)
	put("info", c.Info, c.Info != nil)
	put("watch", c.Watch, c.Watch != nil)
	put("rooms", c.Rooms, c.Rooms != nil)
	data, err := json.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("auth: %w", err)
	}
	var p payload
	if err := errors.Join(json.Unmarshal(data, &p), p.Validate()); err != nil {
		return "", err
	}
	t := jwt.NewWithClaims(methods[key.Alg], body)
	if key.ID != "" {
		t.Header["kid"] = key.ID
	}
	token, err := t.SignedString(key.sign)
	if err != nil {
		return "", fmt.Errorf("auth: %w", err)
	}
	if len(token) > MaxToken {
		return "", refuse(TooLarge, "token: %d bytes, at most %d are allowed", len(token), MaxToken)
	}
	return token, nil
}
