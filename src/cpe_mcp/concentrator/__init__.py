"""concentrator"""
