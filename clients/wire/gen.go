package wire

//go:generate sh generate.sh
