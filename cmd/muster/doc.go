// Muster tells an application who is there. This is its one binary: the server, its
// tools and its benchmark.
//
// Only this package wires core and edge together; everything below it meets in
// messages. Each sub-command has a file of its own.
//
// Settings come from four layers, the later wins: defaults, the YAML file of
// --config, MUSTER_… environment variables, flags. A setting has one name in all of
// them (api-listen, MUSTER_API_LISTEN, --api-listen); the struct Config is the only
// place where settings are declared.
//
// Exit codes: 0 clean, 1 fault, 2 bad usage; 1 and 2 come with one line on standard
// error that says what to do.
package main
