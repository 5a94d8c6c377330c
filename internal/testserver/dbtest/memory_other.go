//go:build unix && !linux

package dbtest

// memoryDir is a folder in memory, of which this system has none that is always there.
func memoryDir() string { return "" }
