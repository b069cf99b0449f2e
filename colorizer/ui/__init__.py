"""The pages of the app, and the only code that imports Streamlit."""
