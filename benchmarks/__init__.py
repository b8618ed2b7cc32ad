"""Whole-program measurements, each with what users would pick instead in the same run. Never imported by the
package."""
