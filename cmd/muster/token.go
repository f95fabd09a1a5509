package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/edge/auth"
)

func tokenCommand() *cobra.Command {
	var who auth.Claims
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:     "token USER",
		Short:   "Print a client token (JWT) signed with the configured key, or the one of --dev",
		Args:    cobra.ExactArgs(1),
		Example: "  muster token alice\n  muster token alice --ttl 24h --jwt-key-file private.pem\n  muster token alice --caps '*,publish'",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := loadConfig(cmd.Flags(), environment())
			if err != nil {
				return err
			}
			key, err := signingKey(cfg)
			if err != nil {
				return err
			}
			who.User = args[0]
			token, err := mint(cfg, key, who, ttl)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}
	addFlags(cmd.Flags(), "jwt-key", "jwt-key-file", "issuer", "audience")
	cmd.Flags().StringVar(&who.App, "app", "", "the application (tenant) the user belongs to (default: "+auth.DefaultApp+")")
	cmd.Flags().StringVar(&who.Device, "device", "", "the only device that may use the token")
	cmd.Flags().StringSliceVar(&who.Caps, "caps", nil, "the methods the client may use, such as *,publish (default: all but publish)")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long the token is valid")
	return cmd
}

// keys reads the configured keys; none configured is not an error.
func keys(cfg Config) ([]auth.Key, error) {
	var list []auth.Key
	settings := []struct{ name, value string }{{"jwt-key", cfg.JWTKey}}
	if cfg.JWTKeyFile != "" {
		settings = append(settings, struct{ name, value string }{"jwt-key-file", "file:" + cfg.JWTKeyFile})
	}
	for _, s := range settings {
		if s.value == "" {
			continue
		}
		parsed, err := auth.ParseKeys(s.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		list = append(list, parsed...)
	}
	return list, nil
}

// signingKey is the first configured key that can sign, or the one of --dev.
func signingKey(cfg Config) (auth.Key, error) {
	list, err := keys(cfg)
	if err != nil {
		return auth.Key{}, err
	}
	if len(list) == 0 {
		return auth.Secret(devSecret), nil
	}
	for _, key := range list {
		if key.CanSign() {
			return key, nil
		}
	}
	return auth.Key{}, fmt.Errorf("the configured key is public and cannot sign; give the private key with --jwt-key-file")
}

// mint completes the claims of a user and signs them.
func mint(cfg Config, key auth.Key, claims auth.Claims, ttl time.Duration) (string, error) {
	if ttl < time.Second {
		return "", fmt.Errorf("--ttl: %v is too short; write at least 1s", ttl)
	}
	claims.Issuer, claims.Issued = cfg.Issuer, time.Now()
	claims.Expires = claims.Issued.Add(ttl)
	if cfg.Audience != "" {
		claims.Audience = []string{cfg.Audience}
	}
	token, err := auth.Sign(key, claims)
	if err != nil {
		return "", fmt.Errorf("cannot make a token for %q: %s", claims.User, strings.TrimPrefix(err.Error(), "auth: "))
	}
	return token, nil
}
